//! The command that repeats a run in a bed, as a shell takes it.

use std::path::Path;

use super::params::Params;

/// With a kernel and modules as the user named them.
pub(crate) fn command(
    bed: &str,
    kernel: &str,
    modules: Option<&Path>,
    kernel_args: &[String],
    params: &Params,
) -> String {
    let mut words = vec![format!("cargo xtask test --bed {bed} --kernel {}", quoted(kernel))];
    words.extend(modules.map(|folder| format!("--modules {}", quoted(&folder.display().to_string()))));
    // They may begin with a dash.
    words.extend(kernel_args.iter().map(|text| format!("--kernel-args={}", quoted(text))));
    words.extend((*params != Params::default()).then(|| format!("--params {params}")));
    words.join(" ")
}

/// A word for a shell.
fn quoted(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./:=+,@%".contains(&byte);
    if !text.is_empty() && text.bytes().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_was_asked_for_is_forgotten() {
        let plain = command("amd", "debian:6.12", None, &[], &Params::default());
        assert_eq!(plain, "cargo xtask test --bed amd --kernel debian:6.12");
        let args = ["-x y".to_owned(), "nokaslr".to_owned()];
        let params = "npt=0".parse().unwrap();
        let all = command("amd", "./it's mine", Some(Path::new("m")), &args, &params);
        let words = "--kernel './it'\\''s mine' --modules m --kernel-args='-x y' --kernel-args=nokaslr --params npt=0";
        assert_eq!(all, format!("cargo xtask test --bed amd {words}"));
    }

    #[test]
    fn a_shell_reads_back_what_was_quoted() {
        for text in ["a b", "it's", "$(x)", "", "a;b", "~/linux", "\\"] {
            let output = std::process::Command::new("sh")
                .args(["-c", &format!("printf %s {}", quoted(text))])
                .output()
                .unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), text);
        }
    }
}
