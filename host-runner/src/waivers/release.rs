//! Linux releases, as far as a waiver tells them apart: by series, `7.1`.
//!
//! What comes behind the series says little of what is in a kernel: Debian's 5.10.262 calls itself `5.10.0-46-amd64`.

use serde::Deserialize;

/// A series of Linux. The oldest stands for a kernel that does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Release {
    major: u32,
    minor: u32,
}

impl Release {
    /// The series of a kernel's release, as `uname -r` has it; older than any other if there is none in it.
    pub(super) fn of(kernel: &str) -> Self {
        let digits = |text: &str| text.find(|char: char| !char.is_ascii_digit()).unwrap_or(text.len());
        let read = || {
            let (major, rest) = kernel.split_once('.')?;
            Some(Self { major: major.parse().ok()?, minor: rest[..digits(rest)].parse().ok()? })
        };
        read().unwrap_or_default()
    }
}

impl TryFrom<String> for Release {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let release = Self::of(&text);
        let again = format!("{}.{}", release.major, release.minor);
        if text == again && release != Self::default() {
            Ok(release)
        } else {
            Err(format!("`{text}` is no series of Linux releases, such as \"6.12\""))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Release;

    #[test]
    fn a_kernel_is_of_a_series() {
        let of = |kernel: &str| Release::of(kernel);
        let release = |major, minor| Release { major, minor };
        assert_eq!(of("7.2.13+deb14-amd64"), release(7, 2));
        assert_eq!(of("5.10.0-46-amd64"), release(5, 10));
        assert_eq!(of("7.1-rc3"), release(7, 1));
        assert!(of("5.9.1") < of("5.10.0") && of("6.19") < of("7.0"));
        for odd in ["", "unknown", "7", "7.", "7.x", "v7.1", "-1.2", "99999999999.1"] {
            assert_eq!(of(odd), Release::default(), "{odd}");
        }
    }

    #[test]
    fn only_a_series_can_be_named() {
        for bad in ["", "7", "7.1.3", "7.1-rc3", "v7.1", "07.1", "0.0"] {
            assert!(Release::try_from(bad.to_owned()).is_err(), "{bad}");
        }
        assert!(Release::try_from("6.12".to_owned()).is_ok());
    }
}
