//! Hands the linker script and its addresses to the linker, and refuses a payload without a stanza.
use exitspec_protocol::{IMAGE_BASE, LOW_IMAGE_BASE};
use std::{fs, process::exit};

fn main() -> std::io::Result<()> {
    println!("cargo::rerun-if-changed=link.ld");
    println!("cargo::rerun-if-changed=src/bin");
    println!("cargo::rerun-if-changed=Cargo.toml");
    let folder = std::env::current_dir()?;
    println!("cargo::rustc-link-arg-bins=-T{}", folder.join("link.ld").display());
    println!("cargo::rustc-link-arg-bins=--defsym=IMAGE_BASE={IMAGE_BASE:#x}");
    println!("cargo::rustc-link-arg-bins=--defsym=LOW_IMAGE_BASE={LOW_IMAGE_BASE:#x}");

    let manifest = fs::read_to_string("Cargo.toml")?;
    for file in fs::read_dir("src/bin")? {
        let file = file?.path();
        let Some(name) = file.file_stem().and_then(|stem| stem.to_str()) else { continue };
        if file.extension().is_some_and(|e| e == "rs")
            && !manifest.contains(&format!("\nname = \"{name}\"\n"))
        {
            println!(
                "cargo::error=src/bin/{name}.rs would never be built: add to guest-payloads/Cargo.toml \
                 [[bin]] name = \"{name}\", required-features = [\"guest\"], test = false, bench = false"
            );
            exit(1);
        }
    }
    Ok(())
}
