//! The options of `cargo xtask test` that say where the suite runs. Everything else is the runner's.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args, Command, FromArgMatches, ValueEnum};

use super::kernel::Spec;
use super::kind::Kind;
use super::params::Params;

/// Where `/dev/kvm` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Where {
    /// On this machine
    Local,
    /// In a machine with an AMD CPU that QEMU emulates: real kvm_amd, any kernel
    Amd,
    /// In a machine with an Intel CPU that Bochs emulates: real kvm_intel, any kernel
    Intel,
    /// On this machine and in both beds; one table at the end
    All,
}

impl Where {
    /// The beds among these places.
    pub(crate) fn beds(self) -> Vec<Kind> {
        match self {
            Self::Local => Vec::new(),
            Self::Amd => vec![Kind::Amd],
            Self::Intel => vec![Kind::Intel],
            Self::All => Kind::ALL.to_vec(),
        }
    }
}

/// Where the suite runs: on this machine, or in a bed, a machine that is emulated for it.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Where the suite runs")]
pub(crate) struct BedArgs {
    /// The machine [default: local; amd if another option here is given]
    #[arg(long, value_enum, value_name = "BED")]
    pub(crate) bed: Option<Where>,
    /// Its kernel: debian:6.12, debian:6.1 and so on, small (see `cargo xtask kernel build`), host, a bzImage or
    /// vmlinux, or a kernel's build tree [default: debian:6.12 for amd, small:6.12 for intel]
    #[arg(long, value_name = "KERNEL")]
    pub(crate) kernel: Option<Spec>,
    /// The kernel's modules: a folder with *.ko [default: those that belong to the kernel]
    #[arg(long, value_name = "DIR")]
    pub(crate) modules: Option<PathBuf>,
    /// Parameters of KVM's modules, as npt=0,kvm.ignore_msrs=1; a bare name is that of the bed's module, kvm_amd or kvm_intel (repeatable)
    #[arg(long, value_name = "PARAMS")]
    pub(crate) params: Vec<Params>,
    /// Run under each of these parameters and compare: npt=0+vgif=0 is one of them, `default` is none
    /// [without a list: default and one or more parameters of the bed's module off, as docs/beds.md has them]
    #[arg(long, value_name = "LIST", num_args = 0..=1, require_equals = true, value_delimiter = ',')]
    pub(crate) matrix: Option<Vec<Params>>,
    /// How many machines run at once, of a matrix or of all beds
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub(crate) jobs: u8,
    /// More words for the kernel's command line (repeatable)
    #[arg(long, value_name = "WORDS", allow_hyphen_values = true)]
    pub(crate) kernel_args: Vec<String>,
    /// How long the kernel may take until the suite begins, in seconds [default: 120 for amd, 600 for intel]
    #[arg(long, value_name = "SECONDS")]
    pub(crate) boot_timeout: Option<u64>,
}

impl BedArgs {
    /// Takes the options that are ours out of a command line, wherever they are; the rest is the runner's.
    /// Ends the program if they are wrong, as clap does.
    pub(crate) fn split(words: &[OsString]) -> (Self, Vec<OsString>) {
        let (ours, rest) = split(&command(), words);
        let matches = command().get_matches_from(ours);
        // What `get_matches_from` took has this form.
        let args = Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
        args.checked();
        (args, rest)
    }

    /// As [`BedArgs::split`], with the error that would end the program.
    #[cfg(test)]
    pub(crate) fn try_split(words: &[OsString]) -> Result<(Self, Vec<OsString>), clap::Error> {
        let (ours, rest) = split(&command(), words);
        let args = Self::from_arg_matches(&command().try_get_matches_from(ours)?)?;
        args.check().map_err(|mistake| command().error(ErrorKind::ArgumentConflict, mistake))?;
        Ok((args, rest))
    }

    /// The words of a command line that are ours, in their order.
    pub(crate) fn own_words(words: &[OsString]) -> Vec<OsString> {
        split(&command(), words).0
    }

    /// Ends the program if options would have no effect, as clap does.
    pub(crate) fn checked(&self) {
        if let Err(mistake) = self.check() {
            command().error(ErrorKind::ArgumentConflict, mistake).exit();
        }
    }

    /// Refuses options that would have no effect.
    fn check(&self) -> Result<(), &'static str> {
        if self.bed == Some(Where::Local) && self.emulated() {
            return Err(
                "this machine's kernel and its parameters are as they are: --bed local takes no other option of a bed",
            );
        }
        if self.jobs > 1 && self.matrix.is_none() && self.bed != Some(Where::All) {
            return Err("--jobs is for --matrix and --bed all: without them there is one machine");
        }
        Ok(())
    }

    /// Whether an option is there that only an emulated machine can follow.
    fn emulated(&self) -> bool {
        let machine = self.kernel.is_some() || self.modules.is_some() || self.matrix.is_some();
        machine || !self.params.is_empty() || !self.kernel_args.is_empty() || self.boot_timeout.is_some()
    }

    /// Where the suite runs, if that is not said, follows from the rest.
    pub(crate) fn place(&self) -> Where {
        self.bed.unwrap_or(if self.emulated() { Where::Amd } else { Where::Local })
    }

    /// The help on these options.
    pub(crate) fn help() -> String {
        command().help_template("{options}").render_help().to_string()
    }
}

fn command() -> Command {
    BedArgs::augment_args(Command::new("cargo xtask test").no_binary_name(true))
        .about(None)
        .disable_help_flag(true)
        .override_usage("cargo xtask test [OPTIONS] [FILTER]...")
}

/// Our own words and the others, both in their order.
fn split(command: &Command, words: &[OsString]) -> (Vec<OsString>, Vec<OsString>) {
    let (mut ours, mut rest) = (Vec::new(), Vec::new());
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if word == "--" {
            rest.push(word.clone());
            rest.extend(words.cloned());
            break;
        }
        let text = word.to_string_lossy();
        let (name, value) = match text.strip_prefix("--").unwrap_or_default().split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (text.strip_prefix("--").unwrap_or_default(), None),
        };
        let known = command.get_arguments().find(|argument| argument.get_long() == Some(name));
        let Some(argument) = known else {
            rest.push(word.clone());
            continue;
        };
        ours.push(word.clone());
        if value.is_none() && !argument.is_require_equals_set() {
            ours.extend(words.next().cloned());
        }
    }
    (ours, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> (BedArgs, Vec<String>) {
        let words: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        let (args, rest) = BedArgs::split(&words);
        (args, rest.into_iter().map(|word| word.into_string().unwrap()).collect())
    }

    #[test]
    fn our_options_are_taken_wherever_they_are() {
        let (args, rest) = parse(
            "port-io --bed amd --exact --params npt=0 --params=kvm.x=1,vgif=0 -q --matrix --jobs 2 smm",
        );
        assert_eq!(args.place(), Where::Amd);
        assert_eq!(args.params.len(), 2);
        assert_eq!(args.jobs, 2);
        assert_eq!(rest, ["port-io", "--exact", "-q", "smm"]);
        let (args, rest) = parse("--skip x -- --bed amd");
        assert_eq!(args.place(), Where::Local);
        assert_eq!(rest, ["--skip", "x", "--", "--bed", "amd"]);
    }

    #[test]
    fn a_kernel_alone_means_a_bed_and_nothing_means_this_machine() {
        assert_eq!(parse("").0.place(), Where::Local);
        assert_eq!(parse("--kernel debian:6.1").0.place(), Where::Amd);
        assert_eq!(parse("--boot-timeout 9").0.place(), Where::Amd);
        assert_eq!(parse("--bed local").0.place(), Where::Local);
    }

    #[test]
    fn options_without_an_effect_are_refused() {
        let check = |line: &str| {
            let matches = command().get_matches_from(line.split_whitespace());
            BedArgs::from_arg_matches(&matches).unwrap().check()
        };
        for wrong in ["--params npt=0", "--kernel host", "--matrix", "--kernel-args x", "--boot-timeout 9"] {
            assert!(check(&format!("--bed local {wrong}")).unwrap_err().contains("--bed local"), "{wrong}");
            assert_eq!(check(wrong), Ok(()));
        }
        assert!(check("--jobs 2 --bed amd").unwrap_err().contains("--matrix"));
        assert_eq!(check("--jobs 2 --matrix=default,npt=0"), Ok(()));
        assert_eq!(check("--jobs 2 --bed all"), Ok(()));
    }

    #[test]
    fn beds_are_named_or_follow() {
        assert_eq!(parse("--kernel small --bed intel").0.place(), Where::Intel);
        assert_eq!(parse("--bed all").0.place().beds(), Kind::ALL);
    }

    #[test]
    fn a_matrix_has_a_list_only_behind_an_equals_sign() {
        let (args, rest) = parse("--matrix port-io");
        assert!(args.matrix.unwrap().is_empty(), "the bed's own list");
        assert_eq!(rest, ["port-io"]);
        let list = parse("--matrix=default,npt=0+vgif=0").0.matrix.unwrap();
        let names: Vec<_> = list.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["default", "npt=0+vgif=0"]);
    }

    #[test]
    fn the_help_names_every_option() {
        let help = BedArgs::help();
        for option in command().get_arguments() {
            let name = format!("--{}", option.get_long().unwrap());
            assert!(help.contains(&name), "{name} in {help}");
        }
    }
}
