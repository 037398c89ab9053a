//! KVM's modules: loaded for a turn, unloaded behind it.

use std::ffi::CString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use bed_init::{MODULES, Module};
use rustix::io::Errno;
use rustix::system::{delete_module, finit_module};

/// delete_module(2): fail if the module is in use.
const O_NONBLOCK: i32 = 0o4000;
/// How often is tried to unload a module that is in use: the last process of a case may still be on its way out.
const TRIES: u32 = 100;
/// The time between two tries.
const PAUSE: Duration = Duration::from_millis(100);

/// Loads them in order, and looks for the device, and for parameters of what is built in.
pub(crate) fn load(modules: &[Module], device: &str, builtin_params: &[String]) -> Result<(), String> {
    modules.iter().try_for_each(load_one)?;
    if !Path::new(device).exists() {
        return Err(format!(
            "there is no {device} although KVM's modules are loaded: {}; a kernel with KVM as modules needs --modules DIR",
            list(modules)
        ));
    }
    if let Some(param) = missing(Path::new("/sys/module"), builtin_params) {
        let (module, name) = param.split_once('.').unwrap_or((param, ""));
        return Err(format!("{module} is built into this kernel and has no parameter {name}"));
    }
    Ok(())
}

/// Unloads them, the last one first.
pub(crate) fn unload(modules: &[Module]) -> Result<(), String> {
    modules.iter().rev().try_for_each(|module| {
        let name = CString::new(module.name.as_str()).map_err(|error| error.to_string())?;
        let gone = patiently(TRIES, || delete_module(&name, O_NONBLOCK), || thread::sleep(PAUSE));
        gone.map_err(|error| format!("cannot unload module {}: {error}", module.name))
    })
}

/// Does something until it does not fail for somebody else's use, at most so many times.
fn patiently(
    tries: u32,
    mut attempt: impl FnMut() -> Result<(), Errno>,
    pause: impl Fn(),
) -> Result<(), Errno> {
    for _ in 1..tries {
        match attempt() {
            Err(Errno::AGAIN | Errno::BUSY) => pause(),
            other => return other,
        }
    }
    attempt()
}

fn list(modules: &[Module]) -> String {
    let names: Vec<&str> = modules.iter().map(|module| module.name.as_str()).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// The first of these parameters that no module below `modules` has.
fn missing<'a>(modules: &Path, params: &'a [String]) -> Option<&'a String> {
    let exists = |param: &&String| {
        let (module, name) = param.split_once('.').unwrap_or((param, ""));
        modules.join(module).join("parameters").join(name).is_file()
    };
    params.iter().find(|param| !exists(param))
}

/// Loads a module, with the reason in the words of insmod's users.
fn load_one(module: &Module) -> Result<(), String> {
    let path = PathBuf::from(MODULES).join(&module.file);
    let file = File::open(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let params = CString::new(module.params.as_str()).map_err(|error| error.to_string())?;
    match finit_module(&file, &params, 0) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => {
            let Module { name, params, .. } = module;
            Err(format!(
                "cannot load module {name}.ko with parameters `{params}`: {error}; the console says why"
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::fs;

    use super::*;

    #[test]
    fn what_is_in_use_is_tried_again_and_not_for_ever() {
        let outcome = |busy: u32, then: Result<(), Errno>| {
            let (tried, paused) = (Cell::new(0), Cell::new(0));
            let attempt = || {
                tried.set(tried.get() + 1);
                if tried.get() <= busy { Err(Errno::AGAIN) } else { then }
            };
            let outcome = patiently(5, attempt, || paused.set(paused.get() + 1));
            (outcome, tried.get(), paused.get())
        };
        assert_eq!(outcome(0, Ok(())), (Ok(()), 1, 0));
        assert_eq!(outcome(4, Ok(())), (Ok(()), 5, 4));
        assert_eq!(outcome(9, Ok(())), (Err(Errno::AGAIN), 5, 4));
        assert_eq!(outcome(1, Err(Errno::NOENT)), (Err(Errno::NOENT), 2, 1));
    }

    #[test]
    fn a_parameter_that_is_not_there_is_named() {
        let modules = std::env::temp_dir().join(format!("bed-init-{}", std::process::id()));
        let folder = modules.join("kvm_amd/parameters");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("npt"), "1").unwrap();
        let params = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(missing(&modules, &[]), None);
        assert_eq!(missing(&modules, &params(&["kvm_amd.npt"])), None);
        for wrong in ["kvm_amd.nptt", "kvm.npt", "kvm_amd", "kvm_amd."] {
            assert_eq!(missing(&modules, &params(&["kvm_amd.npt", wrong])).unwrap(), wrong);
        }
        fs::remove_dir_all(&modules).unwrap();
    }
}
