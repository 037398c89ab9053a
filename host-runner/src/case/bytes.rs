//! Bytes as a manifest states them: a number of the operand's size, or the bytes themselves.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de};
use smallvec::SmallVec;

/// Bytes that an exit carries, inline up to eight as nearly all are.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Bytes(pub SmallVec<[u8; 8]>);

/// More than a page of data is no exit of KVM's; a manifest that states it is mistaken.
const MAX: usize = 4096;

impl Bytes {
    /// A copy of `bytes`.
    pub fn new(bytes: &[u8]) -> Self {
        Self(SmallVec::from_slice(bytes))
    }

    /// The little-endian number, if it is at most eight bytes.
    pub fn number(&self) -> Option<u64> {
        let mut long = [0; 8];
        long.get_mut(..self.0.len())?.copy_from_slice(&self.0);
        Some(u64::from_le_bytes(long))
    }
}

/// The data that an exit must carry, or that the host gives back.
///
/// In a manifest: a number (little-endian, as wide as the access), a list of bytes, or a text whose
/// bytes are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DataExpect {
    /// A little-endian number, as wide as the access; repeated for each item of a string access.
    Number(u64),
    /// Exactly these bytes.
    Bytes(Bytes),
}

impl DataExpect {
    /// The bytes for an access of `size` bytes times `count` items; `None` if they do not fit it exactly.
    pub fn bytes(&self, size: usize, count: usize) -> Option<Bytes> {
        match self {
            Self::Number(number) => {
                let item = number.to_le_bytes();
                let item = item.get(..size)?;
                if size < 8 && number >> (8 * size) != 0 {
                    return None;
                }
                Some(Bytes(item.iter().copied().cycle().take(size.checked_mul(count)?.min(MAX)).collect()))
            }
            Self::Bytes(bytes) => (bytes.0.len() == size.checked_mul(count)?).then(|| bytes.clone()),
        }
    }

    /// The bytes as they lie in memory: a number in `size` bytes, or the bytes themselves. `None` if the
    /// number does not fit.
    pub fn stored(&self, size: u8) -> Option<Bytes> {
        match self {
            Self::Number(_) => self.bytes(usize::from(size), 1),
            Self::Bytes(bytes) => Some(bytes.clone()),
        }
    }

    /// Whether `observed`, of items of `size` bytes, is this.
    pub fn holds(&self, observed: &Bytes, size: usize) -> bool {
        let count = observed.0.len().checked_div(size).unwrap_or(0);
        // No data is never the data that a number stands for.
        count > 0 && self.bytes(size, count).is_some_and(|bytes| bytes == *observed)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.number() {
            Some(number) if !self.0.is_empty() => {
                write!(f, "{number:#0width$x}", width = 2 + 2 * self.0.len())
            }
            _ => {
                for (index, byte) in self.0.iter().take(32).enumerate() {
                    write!(f, "{}{byte:02x}", if index == 0 { "" } else { " " })?;
                }
                if self.0.len() > 32 { write!(f, " ... ({} bytes)", self.0.len()) } else { Ok(()) }
            }
        }
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{self}]")
    }
}

impl fmt::Display for DataExpect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number:#x}"),
            Self::Bytes(bytes) => bytes.fmt(f),
        }
    }
}

impl Serialize for Bytes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DataExpect {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = DataExpect;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, a list of bytes, or a text whose bytes are meant")
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<DataExpect, E> {
                u64::try_from(number)
                    .map(DataExpect::Number)
                    .map_err(|_| E::custom("data is never negative; write its bits, such as 0xff"))
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<DataExpect, E> {
                Ok(DataExpect::Number(number))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<DataExpect, E> {
                bounded(text.len())?;
                Ok(DataExpect::Bytes(Bytes::new(text.as_bytes())))
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<DataExpect, A::Error> {
                let mut bytes = SmallVec::new();
                while let Some(byte) = list.next_element::<u8>()? {
                    bytes.push(byte);
                    bounded(bytes.len())?;
                }
                Ok(DataExpect::Bytes(Bytes(bytes)))
            }
        }
        fn bounded<E: de::Error>(len: usize) -> Result<(), E> {
            if len <= MAX { Ok(()) } else { Err(E::custom(format!("more than {MAX} bytes of data"))) }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for DataExpect {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Data".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "A little-endian number as wide as the access, a list of bytes, or a text whose bytes are meant.",
            "anyOf": [
                { "type": "integer", "minimum": 0 },
                { "type": "array", "items": { "type": "integer", "minimum": 0, "maximum": 255 } },
                { "type": "string" }
            ]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_as_wide_as_the_access() {
        let number = DataExpect::Number(0x1234);
        assert_eq!(number.bytes(2, 1), Some(Bytes::new(&[0x34, 0x12])));
        assert_eq!(number.bytes(4, 2), Some(Bytes::new(&[0x34, 0x12, 0, 0, 0x34, 0x12, 0, 0])));
        assert_eq!(number.bytes(1, 1), None, "0x1234 does not fit a byte");
        assert!(!number.holds(&Bytes::new(&[0x34]), 1));
        assert!(!number.holds(&Bytes::default(), 2), "no data is no match");
        assert!(number.holds(&Bytes::new(&[0x34, 0x12]), 2));
    }

    #[test]
    fn bytes_must_fit_exactly() {
        let bytes: DataExpect = serde_json::from_str("[1, 2, 3]").unwrap();
        assert!(bytes.holds(&Bytes::new(&[1, 2, 3]), 1));
        assert!(!bytes.holds(&Bytes::new(&[1, 2]), 1));
        assert_eq!(bytes.bytes(2, 1), None);
        assert!(serde_json::from_str::<DataExpect>("[256]").is_err());
        assert!(serde_json::from_str::<DataExpect>("-1").is_err());
    }

    #[test]
    fn long_data_is_cut_when_shown() {
        let shown = Bytes::new(&[0xab; 4096]).to_string();
        assert!(shown.len() < 200 && shown.ends_with("(4096 bytes)"), "{shown}");
        assert_eq!(Bytes::new(&[0x05, 0x00]).to_string(), "0x0005");
    }
}
