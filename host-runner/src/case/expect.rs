//! Numbers as a manifest states them: constants, places in the payload, masks, "unchanged".
//!
//! One small language serves exit fields, registers and banks alike. It knows nothing of TOML
//! syntax beyond serde's data model, and of the payload only through [`Places`].

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de};

/// Resolves the labels of a payload.
pub trait Places {
    /// The address of `label`.
    fn at(&self, label: &str) -> Option<u64>;
    /// The address after the instruction at `label`.
    fn after(&self, label: &str) -> Option<u64>;
    /// The label at or before an address, and the distance, for people.
    fn nearest(&self, _address: u64) -> Option<(String, u64)> {
        None
    }
}

/// A number: a constant or a place in the payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expr {
    /// A constant.
    Number(u64),
    /// `at LABEL`, `at LABEL+0x10`: the address of an ELF symbol, plus an offset in bytes.
    At(String, i64),
    /// `after LABEL`: the address behind the instruction at the symbol.
    After(String),
}

impl Expr {
    /// The number, or `None` if the payload has no such place.
    pub fn resolve(&self, places: &dyn Places) -> Option<u64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::At(label, offset) => places.at(label).map(|at| at.wrapping_add_signed(*offset)),
            Self::After(label) => places.after(label),
        }
    }

    /// The label that must exist for this to resolve.
    pub fn label(&self) -> Option<&str> {
        match self {
            Self::Number(_) => None,
            Self::At(label, _) | Self::After(label) => Some(label),
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if let Some(label) = text.strip_prefix("after ") {
            return check_label(label.trim()).map(|label| Self::After(label.to_owned()));
        }
        if let Some(place) = text.strip_prefix("at ") {
            let Some((label, offset)) = place.split_once('+') else {
                return check_label(place.trim()).map(|label| Self::At(label.to_owned(), 0));
            };
            let offset = parse_number(offset.trim()).ok_or_else(|| format!("`{offset}` is not an offset"))?;
            let offset = i64::try_from(offset).map_err(|_| format!("`{offset}` is too far"))?;
            return check_label(label.trim()).map(|label| Self::At(label.to_owned(), offset));
        }
        parse_number(text).map(Self::Number).ok_or_else(|| {
            format!("`{text}` is neither a number such as 0x8000_0000_0000_0000 nor a place such as `at LABEL` or `after LABEL`")
        })
    }
}

fn check_label(label: &str) -> Result<&str, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '$');
    if !label.is_empty() && label.chars().all(plain) {
        Ok(label)
    } else {
        Err(format!("`{label}` is not a label"))
    }
}

/// Reads `123`, `0x7f`, `0b101`, with `_` between digits.
fn parse_number(text: &str) -> Option<u64> {
    let digits = text.replace('_', "");
    let (digits, radix) = match digits.get(..2) {
        Some("0x") => (&digits[2..], 16),
        Some("0b") => (&digits[2..], 2),
        _ => (digits.as_str(), 10),
    };
    // from_str_radix would take a sign.
    digits.starts_with(|c: char| c.is_ascii_hexdigit()).then(|| u64::from_str_radix(digits, radix).ok())?
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number:#x}"),
            Self::At(label, 0) => write!(f, "at {label}"),
            Self::At(label, offset) => write!(f, "at {label}+{offset:#x}"),
            Self::After(label) => write!(f, "after {label}"),
        }
    }
}

/// What a number must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// Exactly this.
    Is(Expr),
    /// `{ mask = M, is = N }`: the bits of the mask are these; the others do not matter.
    Masked {
        /// The bits that matter.
        mask: u64,
        /// Their values.
        is: u64,
    },
    /// `{ not = N }`: anything else.
    Not(Expr),
    /// `"unchanged"`: what it was when the guest last stopped, or was last set by the host.
    Unchanged,
}

impl Expect {
    /// Whether `observed` is as expected; `before` is the value at the last stop.
    /// `None` if a place cannot be resolved.
    pub fn holds(&self, observed: u64, before: u64, places: &dyn Places) -> Option<bool> {
        Some(match self {
            Self::Is(expr) => expr.resolve(places)? == observed,
            Self::Not(expr) => expr.resolve(places)? != observed,
            Self::Masked { mask, is } => observed & mask == *is,
            Self::Unchanged => observed == before,
        })
    }

    /// The expression inside, if it has one.
    pub fn expr(&self) -> Option<&Expr> {
        match self {
            Self::Is(expr) | Self::Not(expr) => Some(expr),
            Self::Masked { .. } | Self::Unchanged => None,
        }
    }
}

impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Is(expr) => expr.fmt(f),
            Self::Not(expr) => write!(f, "anything but {expr}"),
            Self::Masked { mask, is } => write!(f, "{is:#x} under mask {mask:#x}"),
            Self::Unchanged => f.write_str("unchanged"),
        }
    }
}

impl<'de> Deserialize<'de> for Expr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Expr;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a number, or a text such as \"at LABEL\", \"after LABEL\" or \"0xffff_ffff_8000_0000\"",
                )
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Expr, E> {
                u64::try_from(number).map(Expr::Number).map_err(|_| {
                    E::custom(format!(
                        "{number} is negative; write the two's complement as text, \"{:#x}\"",
                        number.cast_unsigned()
                    ))
                })
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Expr, E> {
                Ok(Expr::Number(number))
            }
            fn visit_bool<E: de::Error>(self, flag: bool) -> Result<Expr, E> {
                Ok(Expr::Number(flag.into()))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Expr, E> {
                Expr::parse(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl<'de> Deserialize<'de> for Expect {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Expect;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, \"at LABEL\", \"after LABEL\", \"unchanged\", { mask = M, is = N } or { not = N }")
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Expect, E> {
                Expr::deserialize(de::value::I64Deserializer::new(number)).map(Expect::Is)
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Expect, E> {
                Ok(Expect::Is(Expr::Number(number)))
            }
            fn visit_bool<E: de::Error>(self, flag: bool) -> Result<Expect, E> {
                Ok(Expect::Is(Expr::Number(flag.into())))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Expect, E> {
                if text == "unchanged" {
                    return Ok(Expect::Unchanged);
                }
                Expr::parse(text).map(Expect::Is).map_err(E::custom)
            }
            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Expect, A::Error> {
                let table = ExpectTable::deserialize(de::value::MapAccessDeserializer::new(map))?;
                match table {
                    ExpectTable { mask: Some(Expr::Number(mask)), is: Some(Expr::Number(is)), not: None } => {
                        if is & !mask != 0 {
                            let stray = is & !mask;
                            return Err(de::Error::custom(format!(
                                "`is` has bits {stray:#x} outside `mask`; it could never hold"
                            )));
                        }
                        Ok(Expect::Masked { mask, is })
                    }
                    ExpectTable { mask: None, is: None, not: Some(expr) } => Ok(Expect::Not(expr)),
                    _ => Err(de::Error::custom("expected { mask = NUMBER, is = NUMBER } or { not = N }")),
                }
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// The table forms of [`Expect`].
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ExpectTable {
    mask: Option<Expr>,
    is: Option<Expr>,
    not: Option<Expr>,
}

impl Serialize for Expect {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for Expr {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Expr".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "A number, or a place in the payload: \"at LABEL\", \"at LABEL+0x10\", \"after LABEL\".",
            "anyOf": [
                { "type": "integer", "minimum": 0 },
                { "type": "boolean" },
                { "type": "string", "pattern": "^(at [\\w.$]+(\\+(0x)?[0-9a-fA-F_]+)?|after [\\w.$]+|0x[0-9a-fA-F_]+|0b[01_]+|[0-9_]+)$" }
            ]
        })
    }
}

impl JsonSchema for Expect {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Expect".into()
    }
    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let expr = generator.subschema_for::<Expr>();
        let table = generator.subschema_for::<ExpectTable>();
        schemars::json_schema!({
            "description": "What a number must be.",
            "anyOf": [expr, { "const": "unchanged" }, table]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Here;
    impl Places for Here {
        fn at(&self, label: &str) -> Option<u64> {
            (label == "here").then_some(0x1000)
        }
        fn after(&self, label: &str) -> Option<u64> {
            self.at(label).map(|at| at + 2)
        }
    }

    fn expect(json: &str) -> Result<Expect, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn places_resolve_and_match() {
        let holds = |json: &str, observed| expect(json).unwrap().holds(observed, 7, &Here);
        assert_eq!(holds(r#""at here""#, 0x1000), Some(true));
        assert_eq!(holds(r#""at here+0x10""#, 0x1010), Some(true));
        assert_eq!(holds(r#""after here""#, 0x1000), Some(false));
        assert_eq!(holds(r#""after here""#, 0x1002), Some(true));
        assert_eq!(holds(r#""at nowhere""#, 0), None);
        assert_eq!(holds(r#""unchanged""#, 7), Some(true));
        assert_eq!(holds(r#""unchanged""#, 8), Some(false));
        assert_eq!(holds(r#""0xffff_ffff_8000_0000""#, 0xffff_ffff_8000_0000), Some(true));
        assert_eq!(holds(r#"{"mask": 240, "is": 16}"#, 0x1f), Some(true));
        assert_eq!(holds(r#"{"not": 3}"#, 3), Some(false));
    }

    #[test]
    fn nonsense_is_refused_with_the_way_out() {
        assert!(expect("-1").unwrap_err().contains("0xffffffffffffffff"));
        assert!(expect(r#""here""#).unwrap_err().contains("at LABEL"));
        assert!(expect(r#""at a b""#).unwrap_err().contains("not a label"));
        assert!(expect(r#"{"mask": 1, "is": 2}"#).unwrap_err().contains("never hold"));
        assert!(expect(r#"{"mask": 1, "was": 2}"#).is_err());
        assert!(expect(r#""+5""#).is_err());
    }
}
