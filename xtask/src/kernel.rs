//! `cargo xtask kernel`: kernels to test in a bed.

use crate::bed::{self, kernel};

/// `cargo xtask kernel`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Build a small kernel from Debian's source, for `--kernel small`.
    ///
    /// The source is fetched by apt, the configuration is xtask/kernel/bed.config, the result is kept below
    /// target/beds/kernels. What the build needs is installed by apt if that may be done. It takes some minutes;
    /// a kernel that is built already is left as it is.
    Build {
        /// The series of Linux, as Debian has it
        #[arg(long, value_name = "SERIES", default_value = kernel::small::DEFAULT, value_parser = kernel::series)]
        release: String,
    },
}

/// Does what the verb says.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let Verb::Build { release } = &args.verb;
    let built = kernel::small::find(release, &bed::folder())?;
    println!("{}", built.image.display());
    Ok(())
}
