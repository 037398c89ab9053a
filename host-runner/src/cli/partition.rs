//! Shards of a run, in cargo nextest's syntax: `count:2/5`, `hash:2/5`.
//!
//! Every test of a selection is in exactly one of its shards. Knows names and places in a list; not what a test is.

use std::fmt;
use std::str::FromStr;

/// One of several equal parts of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Partition {
    by: By,
    /// Which, from 1.
    shard: u64,
    /// Of how many.
    of: u64,
}

/// What decides where a test belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    /// Its place among the selected tests, in turn.
    Count,
    /// Its name alone, so that it stays where it is when others come and go.
    Hash,
}

impl Partition {
    /// Keeps what belongs to this shard.
    pub(super) fn cut<T>(self, tests: &mut Vec<T>, name: impl Fn(&T) -> &str) {
        let mut place = 0..;
        tests.retain(|test| {
            let number = match self.by {
                By::Count => place.next().unwrap_or_default(),
                By::Hash => hash(name(test)),
            };
            number % self.of == self.shard - 1
        });
    }
}

/// 64-bit FNV-1a, with its upper half, which more bits of the name decide, folded down.
fn hash(name: &str) -> u64 {
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    hash ^ hash >> 32
}

impl FromStr for Partition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || format!("`{text}` is no shard; expected count:M/N or hash:M/N, such as count:2/5");
        let (by, numbers) = text.split_once(':').ok_or_else(form)?;
        let (shard, of) = numbers.split_once('/').ok_or_else(form)?;
        let by = match by {
            "count" => By::Count,
            "hash" => By::Hash,
            _ => return Err(form()),
        };
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| text.parse::<u64>().ok()).flatten().ok_or_else(form)
        };
        let (shard, of) = (number(shard)?, number(of)?);
        if shard == 0 || shard > of {
            return Err(format!("there is no shard {shard} of {of}: they are counted from 1 to {of}"));
        }
        Ok(Self { by, shard, of })
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = match self.by {
            By::Count => "count",
            By::Hash => "hash",
        };
        write!(f, "{by}:{}/{}", self.shard, self.of)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shard(text: &str, names: &[String]) -> Vec<String> {
        let mut tests = names.to_vec();
        text.parse::<Partition>().unwrap().cut(&mut tests, |name| name);
        tests
    }

    proptest! {
        #[test]
        fn every_test_is_in_exactly_one_shard(
            names in prop::collection::btree_set("[a-z]{1,6}\\.[a-z-]{1,12}(~kick|~save-restore\\+kick)?", 0..80),
            of in 1_u64..12,
            by in prop::sample::select(vec!["count", "hash"]),
        ) {
            let names = Vec::from_iter(names);
            let mut all: Vec<String> =
                (1..=of).flat_map(|n| shard(&format!("{by}:{n}/{of}"), &names)).collect();
            all.sort();
            prop_assert_eq!(all, names);
        }

        #[test]
        fn a_hashed_test_stays_where_it_is_when_others_come(
            names in prop::collection::btree_set("[a-z]{1,6}\\.[a-z-]{1,12}", 1..40),
            more in prop::collection::btree_set("[0-9]{1,8}", 0..40),
            of in 1_u64..12,
        ) {
            let few = Vec::from_iter(names.clone());
            let many: Vec<String> = names.into_iter().chain(more).collect();
            for n in 1..=of {
                let text = format!("hash:{n}/{of}");
                let now = shard(&text, &many);
                prop_assert!(shard(&text, &few).iter().all(|name| now.contains(name)));
            }
        }
    }

    #[test]
    fn shards_are_the_same_on_every_machine_and_for_good() {
        let names = ["a.one", "a.one~kick", "a.two", "b.one", "b.two"].map(str::to_owned);
        assert_eq!(shard("count:1/2", &names), ["a.one", "a.two", "b.two"]);
        assert_eq!(shard("count:2/2", &names), ["a.one~kick", "b.one"]);
        // FNV-1a of "a" and of nothing, as its authors have published them.
        assert_eq!(hash("a"), 0xaf63_dc4c_8601_ec8c ^ 0xaf63_dc4c);
        assert_eq!(hash(""), 0xcbf2_9ce4_8422_2325 ^ 0xcbf2_9ce4);
    }

    #[test]
    fn hashed_shards_are_of_similar_size() {
        let names: Vec<String> = (0..1000).map(|n| format!("family-{}.case-{n}~kick", n % 7)).collect();
        for n in 1..=5 {
            let size = shard(&format!("hash:{n}/5"), &names).len();
            assert!((140..260).contains(&size), "{n}: {size}");
        }
    }

    #[test]
    fn wrong_shards_are_named() {
        let error = |text: &str| text.parse::<Partition>().unwrap_err();
        for text in [
            "",
            "2/5",
            "count:2",
            "count:/5",
            "count:2/",
            "count:a/5",
            "count:-1/5",
            "slice:1/2",
            "count:+1/2",
            "Hash:1/2",
            "hash:1/2/3",
        ] {
            assert!(error(text).contains("count:M/N or hash:M/N"), "{text}");
        }
        assert!(error("count:0/5").contains("no shard 0 of 5"));
        assert!(error("hash:6/5").contains("from 1 to 5"));
        assert!(error("count:1/0").contains("no shard 1 of 0"));
        for text in ["count:2/5", "hash:1/1"] {
            assert_eq!(text.parse::<Partition>().unwrap().to_string(), text);
        }
    }
}
