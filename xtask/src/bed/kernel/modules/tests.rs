//! Orders from `modules.dep` and from modules themselves.

use super::*;

/// The smallest ELF file with a `.modinfo`.
fn module(modinfo: &[u8]) -> Vec<u8> {
    let names = b"\0.modinfo\0.shstrtab\0";
    let (names_at, modinfo_at) = (64_u64, 64 + names.len() as u64);
    let sections_at = modinfo_at + modinfo.len() as u64;
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    for half in [1_u16, 62] {
        file.extend(half.to_le_bytes());
    }
    file.extend(1_u32.to_le_bytes());
    for word in [0_u64, 0, sections_at] {
        file.extend(word.to_le_bytes());
    }
    file.extend(0_u32.to_le_bytes());
    for half in [64_u16, 0, 0, 64, 3, 2] {
        file.extend(half.to_le_bytes());
    }
    file.extend(names);
    file.extend(modinfo);
    let mut section = |name: u32, kind: u32, offset: u64, size: u64| {
        for half in [name, kind] {
            file.extend(half.to_le_bytes());
        }
        for word in [0, 0, offset, size, 0, 1, 0] {
            file.extend(word.to_le_bytes());
        }
    };
    section(0, 0, 0, 0);
    section(1, 1, modinfo_at, modinfo.len() as u64);
    section(10, 3, names_at, names.len() as u64);
    file
}

struct Tree(tempfile::TempDir);

impl Tree {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn put(&self, path: &str, content: &[u8]) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn order(&self, wanted: &str) -> Result<Vec<String>, String> {
        let modules = Modules::in_folder(self.0.path()).and_then(|modules| modules.to_load(wanted));
        let modules = modules.map_err(|error| format!("{error:#}"))?;
        Ok(modules.into_iter().map(|module| module.name).collect())
    }
}

fn kvm() -> Tree {
    let tree = Tree::new();
    tree.put("kernel/virt/lib/irqbypass.ko", &module(b"license=GPL\0depends=\0"));
    tree.put("kernel/drivers/crypto/ccp/ccp.ko", &module(b"depends=\0name=ccp\0"));
    tree.put("kernel/arch/x86/kvm/kvm.ko", &module(b"depends=irqbypass\0"));
    tree.put("kernel/arch/x86/kvm/kvm-amd.ko", &module(b"depends=kvm,ccp\0name=kvm_amd\0"));
    tree
}

#[test]
fn modules_say_themselves_what_they_need() {
    assert_eq!(kvm().order("kvm_amd").unwrap(), ["irqbypass", "kvm", "ccp", "kvm_amd"]);
}

#[test]
fn a_list_of_depmod_wins_and_is_read_backwards() {
    let tree = kvm();
    tree.put(
        "modules.dep",
        b"kernel/arch/x86/kvm/kvm-amd.ko: kernel/drivers/crypto/ccp/ccp.ko kernel/arch/x86/kvm/kvm.ko kernel/virt/lib/irqbypass.ko\n\
          kernel/arch/x86/kvm/kvm.ko: kernel/virt/lib/irqbypass.ko\n",
    );
    assert_eq!(tree.order("kvm_amd").unwrap(), ["irqbypass", "kvm", "ccp", "kvm_amd"]);
}

#[test]
fn what_depmod_did_not_list_is_not_loaded() {
    let tree = kvm();
    tree.put("build/kvm.ko", &module(b"depends=gone\0"));
    tree.put("modules.order", b"build/kvm.o\n");
    tree.put(
        "modules.dep",
        b"kernel/arch/x86/kvm/kvm-amd.ko: kernel/arch/x86/kvm/kvm.ko kernel/virt/lib/irqbypass.ko\n",
    );
    assert_eq!(tree.order("kvm_amd").unwrap(), ["irqbypass", "kvm", "kvm_amd"]);
    assert!(tree.order("ccp").unwrap_err().contains("no module ccp"));
}

#[test]
fn a_build_names_its_modules_in_modules_order() {
    // Of a build tree today and before, and of an installation that depmod has not seen.
    for (order, at, ending) in [
        ("arch/x86/kvm/kvm.o", "arch/x86/kvm/kvm", ".ko"),
        ("kernel/arch/x86/kvm/kvm.ko", "arch/x86/kvm/kvm", ".ko"),
        ("kernel/arch/x86/kvm/kvm.ko", "kernel/arch/x86/kvm/kvm", ".ko.gz"),
    ] {
        let tree = Tree::new();
        tree.put("stale/kvm.ko", &module(b"depends=gone\0"));
        tree.put("modules.order", format!("{order}\nvirt/lib/irqbypass.o\nnot/built.o\n").as_bytes());
        tree.put("virt/lib/irqbypass.ko", &module(b"depends=\0"));
        let mut content = module(b"depends=irqbypass\0");
        if ending == ".ko.gz" {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            std::io::Write::write_all(&mut gzip, &content).unwrap();
            content = gzip.finish().unwrap();
        }
        tree.put(&format!("{at}{ending}"), &content);
        assert_eq!(tree.order("kvm").unwrap(), ["irqbypass", "kvm"], "{order}");
    }
}

#[test]
fn two_modules_of_one_name_are_told_apart_by_the_user() {
    let tree = kvm();
    tree.put("old/kvm.ko", &module(b"depends=\0"));
    let error = tree.order("kvm_amd").unwrap_err();
    assert!(error.contains("two modules kvm,") && error.contains("old/kvm.ko"), "{error}");
    assert_eq!(tree.order("ccp").unwrap(), ["ccp"], "what is not needed may be there as often as it likes");
}

#[test]
fn what_is_built_in_needs_no_file() {
    let tree = kvm();
    tree.put("modules.builtin", b"kernel/drivers/crypto/ccp/ccp.ko\nkernel/virt/lib/irqbypass.ko\n");
    fs::remove_file(tree.0.path().join("kernel/virt/lib/irqbypass.ko")).unwrap();
    assert_eq!(tree.order("kvm_amd").unwrap(), ["kvm", "kvm_amd"]);
    tree.put("modules.builtin", b"kernel/arch/x86/kvm/kvm-amd.ko\n");
    assert_eq!(tree.order("kvm_amd").unwrap(), Vec::<String>::new());
}

#[test]
fn what_is_missing_is_named_with_the_one_who_needs_it() {
    let tree = kvm();
    fs::remove_file(tree.0.path().join("kernel/virt/lib/irqbypass.ko")).unwrap();
    let error = tree.order("kvm_amd").unwrap_err();
    assert!(error.contains("kvm needs irqbypass"), "{error}");
    assert!(tree.order("kvm_intel").unwrap_err().contains("no module kvm_intel"));
}

#[test]
fn a_circle_and_garbage_are_mistakes_not_hangs() {
    let tree = Tree::new();
    tree.put("a.ko", &module(b"depends=b\0"));
    tree.put("b.ko", &module(b"depends=a\0"));
    assert!(tree.order("a").unwrap_err().contains("depend on each other"));
    tree.put("c.ko", b"garbage");
    assert!(tree.order("c").unwrap_err().contains("no module"));
    let whole = module(b"depends=b\0");
    for cut in 0..whole.len() {
        assert!(Info::of(&whole[..cut]).is_err(), "{cut}");
    }
}

#[test]
fn a_root_with_one_release_stands_for_it_and_packed_modules_are_unpacked() {
    use std::io::Write;
    let tree = Tree::new();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&module(b"parmtype=npt:bool\0depends=\0")).unwrap();
    tree.put("lib/modules/6.1/kernel/kvm-amd.ko.gz", &gzip.finish().unwrap());
    let modules = Modules::in_folder(tree.0.path()).unwrap().to_load("kvm_amd").unwrap();
    let content = module(b"parmtype=npt:bool\0depends=\0");
    assert_eq!(modules, [Module { name: "kvm_amd".into(), content, params: vec!["npt".into()] }]);
    tree.put("lib/modules/6.2/x", b"");
    assert!(Modules::in_folder(tree.0.path()).unwrap_err().to_string().contains("2 releases"));
}
