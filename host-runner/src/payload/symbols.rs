//! A payload's symbols: manifests name addresses by them, reports explain addresses with them.
//!
//! Names are as the linker wrote them, not demangled.

use std::collections::BTreeMap;

use super::segment::Segment;

/// Most suggestions for a misspelt name.
const MAX_SUGGESTIONS: usize = 3;

/// Longest name, in bytes, that is compared or shown when a lookup fails.
const MAX_SHOWN: usize = 128;

/// How alike a suggestion is at least (Jaro-Winkler, 0 to 1).
const ALIKE: f64 = 0.85;

/// One symbol as the ELF file defines it.
pub(super) struct Symbol {
    pub(super) name: String,
    pub(super) address: u64,
    pub(super) is_function: bool,
    pub(super) is_absolute: bool,
}

/// The symbols that a payload defines.
#[derive(Debug, Default)]
pub struct Symbols {
    /// Each name with its addresses, sorted, without repetition.
    by_name: BTreeMap<String, Vec<u64>>,
    /// The symbols of the image by address: where, where its segment ends, what. One per address.
    by_address: Vec<(u64, u64, String)>,
}

/// Why a name has no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SymbolError {
    /// No symbol has this name.
    #[error("the payload has no symbol {}{}", shown(name), suggest(nearest))]
    Unknown {
        /// The name that was looked for.
        name: String,
        /// Names that look like it, best first.
        nearest: Vec<String>,
    },
    /// Several do.
    #[error(
        "the payload has {} symbols {}, the first two at {:#x} and {:#x}; give the label a unique name",
        addresses.len(), shown(name), addresses[0], addresses[1]
    )]
    Ambiguous {
        /// The name that was looked for.
        name: String,
        /// Where it is defined; at least two.
        addresses: Vec<u64>,
    },
}

impl Symbols {
    pub(super) fn new(symbols: Vec<Symbol>, segments: &[Segment]) -> Self {
        let mut by_name: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for symbol in &symbols {
            by_name.entry(symbol.name.clone()).or_default().push(symbol.address);
        }
        for addresses in by_name.values_mut() {
            addresses.sort_unstable();
            addresses.dedup();
        }
        let mut placed: Vec<(u64, u64, Symbol)> = symbols
            .into_iter()
            .filter(|symbol| !symbol.is_absolute)
            .filter_map(|symbol| {
                let home = segments.iter().find(|segment| segment.range().contains(&symbol.address))?;
                Some((symbol.address, home.range().end, symbol))
            })
            .collect();
        // Of several names for one address the function's explains it best; then any fixed order will do.
        placed.sort_by(|(a, _, x), (b, _, y)| {
            (a, !x.is_function, x.name.len(), &x.name).cmp(&(b, !y.is_function, y.name.len(), &y.name))
        });
        placed.dedup_by_key(|&mut (address, _, _)| address);
        let by_address =
            placed.into_iter().map(|(address, end, symbol)| (address, end, symbol.name)).collect();
        Self { by_name, by_address }
    }

    /// The address of the symbol with this name.
    pub fn lookup(&self, name: &str) -> Result<u64, SymbolError> {
        match self.by_name.get(name).map(Vec::as_slice) {
            Some(&[address]) => Ok(address),
            Some(several) if !several.is_empty() => {
                Err(SymbolError::Ambiguous { name: name.to_owned(), addresses: several.to_vec() })
            }
            _ => Err(SymbolError::Unknown { name: name.to_owned(), nearest: self.suggestions(name) }),
        }
    }

    /// The last symbol at or before `addr` in the same segment, and how many bytes `addr` lies behind it.
    pub fn nearest(&self, addr: u64) -> Option<(&str, u64)> {
        let after = self.by_address.partition_point(|&(address, _, _)| address <= addr);
        let (address, end, name) = self.by_address.get(after.checked_sub(1)?)?;
        (addr < *end).then_some((name.as_str(), addr - address))
    }

    /// All names, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }

    fn suggestions(&self, name: &str) -> Vec<String> {
        if name.len() > MAX_SHOWN {
            return Vec::new();
        }
        let mut alike: Vec<(f64, &str)> = self
            .names()
            .filter(|known| known.len() <= MAX_SHOWN)
            .map(|known| (strsim::jaro_winkler(name, known), known))
            .filter(|&(likeness, _)| likeness >= ALIKE)
            .collect();
        alike.sort_by(|(a, x), (b, y)| b.total_cmp(a).then(x.cmp(y)));
        alike.into_iter().take(MAX_SUGGESTIONS).map(|(_, known)| known.to_owned()).collect()
    }
}

fn shown(name: &str) -> String {
    match name.char_indices().nth(MAX_SHOWN) {
        Some((cut, _)) => format!("{:?}...", &name[..cut]),
        None => format!("{name:?}"),
    }
}

fn suggest(nearest: &[String]) -> String {
    match nearest {
        [] => String::new(),
        _ => format!("; did you mean {}?", nearest.join(", ")),
    }
}
