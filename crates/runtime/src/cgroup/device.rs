//! Which devices a container may open: by files on v1, by a small program in the kernel on v2.

use crate::error::{Attempt, Result};
use std::{fs, io::Write, path::Path};

/// One kind of device and what may be done with it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rule {
    pub(crate) block: bool,
    pub(crate) major: Option<u32>,
    pub(crate) minor: Option<u32>,
    pub(crate) read: bool,
    pub(crate) write: bool,
    pub(crate) make: bool,
}

const fn character(major: u32, minor: Option<u32>) -> Rule {
    Rule { block: false, major: Some(major), minor, read: true, write: true, make: true }
}

/// Making any node is harmless as long as it cannot be opened; the rest is what every program expects.
const USUAL: [Rule; 10] = [
    Rule { block: false, major: None, minor: None, read: false, write: false, make: true },
    Rule { block: true, major: None, minor: None, read: false, write: false, make: true },
    character(1, Some(3)), // null
    character(1, Some(5)), // zero
    character(1, Some(7)), // full
    character(1, Some(8)), // random
    character(1, Some(9)), // urandom
    character(5, Some(0)), // tty
    character(5, Some(2)), // ptmx
    character(136, None),  // terminals
];

pub(super) fn limit_by_files(directory: &Path, allowed: &[Rule]) -> Result<()> {
    let open = |file: &str| {
        let path = directory.join(file);
        let opened = fs::OpenOptions::new().write(true).open(&path);
        opened.attempt(|| format!("open {}", path.display()))
    };
    let attempted = || format!("limit the devices of control group {}", directory.display());
    open("devices.deny")?.write_all(b"a").attempt(attempted)?;
    let mut allow = open("devices.allow")?;
    for rule in USUAL.iter().chain(allowed) {
        let number =
            |number: Option<u32>| number.map_or("*".to_owned(), |number| number.to_string());
        let kind = if rule.block { 'b' } else { 'c' };
        let allowed = [(rule.read, 'r'), (rule.write, 'w'), (rule.make, 'm')];
        let access: String = allowed.into_iter().filter(|it| it.0).map(|it| it.1).collect();
        let line = format!("{kind} {}:{} {access}", number(rule.major), number(rule.minor));
        allow.write_all(line.as_bytes()).attempt(attempted)?;
    }
    Ok(())
}

/// `struct bpf_insn`: operation, registers (source in the high half), offset, immediate.
type Instruction = [u8; 8];

fn instruction(
    operation: u8,
    destination: u8,
    source: u8,
    offset: i16,
    immediate: u32,
) -> Instruction {
    let [o0, o1] = offset.to_le_bytes();
    let [i0, i1, i2, i3] = immediate.to_le_bytes();
    [operation, destination | source << 4, o0, o1, i0, i1, i2, i3]
}

/// The program reads access type, major and minor from its context (`struct bpf_cgroup_dev_ctx`) and answers 1 when
/// a rule fits, else 0. Each rule is a run of comparisons that jump to the next rule when one fails.
fn program(rules: &[Rule]) -> Vec<Instruction> {
    const LOAD_WORD: u8 = 0x61;
    const MOVE: u8 = 0xb7;
    const MOVE_REGISTER: u8 = 0xbf;
    const AND_32: u8 = 0x54;
    const SHIFT_RIGHT: u8 = 0x77;
    const JUMP_UNEQUAL_32: u8 = 0x56;
    const EXIT: u8 = 0x95;
    let (kind_register, access, major_register, minor_register, context, scratch) =
        (2, 3, 4, 5, 1, 6);
    let mut code = vec![
        instruction(LOAD_WORD, kind_register, context, 0, 0),
        instruction(MOVE_REGISTER, access, kind_register, 0, 0),
        instruction(AND_32, kind_register, 0, 0, 0xffff),
        instruction(SHIFT_RIGHT, access, 0, 0, 16),
        instruction(LOAD_WORD, major_register, context, 4, 0),
        instruction(LOAD_WORD, minor_register, context, 8, 0),
    ];
    for rule in rules {
        // BPF_DEVCG_DEV_*: block 1, character 2. BPF_DEVCG_ACC_*: make 1, read 2, write 4.
        let kind = if rule.block { 1 } else { 2 };
        let refused =
            u32::from(!rule.make) | u32::from(!rule.read) << 1 | u32::from(!rule.write) << 2;
        let mut tests = vec![(JUMP_UNEQUAL_32, kind_register, kind)];
        tests.extend(rule.major.map(|major| (JUMP_UNEQUAL_32, major_register, major)));
        tests.extend(rule.minor.map(|minor| (JUMP_UNEQUAL_32, minor_register, minor)));
        // Two instructions for the access test, two for the answer.
        let tail = 3 + 2;
        let length = tests.len() + tail;
        for (index, (operation, register, value)) in tests.into_iter().enumerate() {
            let rest = i16::try_from(length - index - 1).expect("a rule is a few instructions");
            code.push(instruction(operation, register, 0, rest, value));
        }
        code.push(instruction(MOVE_REGISTER, scratch, access, 0, 0));
        code.push(instruction(AND_32, scratch, 0, 0, refused));
        code.push(instruction(JUMP_UNEQUAL_32, scratch, 0, 2, 0));
        code.push(instruction(MOVE, 0, 0, 0, 1));
        code.push(instruction(EXIT, 0, 0, 0, 0));
    }
    code.push(instruction(MOVE, 0, 0, 0, 0));
    code.push(instruction(EXIT, 0, 0, 0, 0));
    code
}

pub(super) fn limit_by_program(directory: &Path, allowed: &[Rule]) -> Result<()> {
    let rules: Vec<Rule> = USUAL.iter().chain(allowed).copied().collect();
    let attempted = || format!("limit the devices of control group {}", directory.display());
    let group = fs::File::open(directory).attempt(attempted)?;
    bpf::attach_device_program(&group, &program(&rules)).attempt(attempted)
}

mod bpf {
    //! Two commands of bpf(2).

    use super::Instruction;
    use std::{
        fs::File,
        io,
        os::fd::{AsRawFd, FromRawFd, OwnedFd},
    };

    const PROGRAM_LOAD: libc::c_int = 5;
    const PROGRAM_ATTACH: libc::c_int = 8;
    const TYPE_CGROUP_DEVICE: u32 = 15;
    const ATTACH_CGROUP_DEVICE: u32 = 6;

    #[repr(C)]
    #[derive(Default)]
    struct Load {
        kind: u32,
        count: u32,
        instructions: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log: u64,
        kernel_version: u32,
        flags: u32,
    }

    #[repr(C)]
    struct Attach {
        target: u32,
        program: u32,
        kind: u32,
        flags: u32,
    }

    fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<libc::c_int> {
        // SAFETY: the attributes have the layout of this command's part of union bpf_attr, and what they point to
        // outlives the call.
        let result = unsafe {
            libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>())
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as libc::c_int) }
    }

    pub(super) fn attach_device_program(group: &File, program: &[Instruction]) -> io::Result<()> {
        let load = Load {
            kind: TYPE_CGROUP_DEVICE,
            count: program.len() as u32,
            instructions: program.as_ptr() as u64,
            license: c"Apache-2.0".as_ptr() as u64,
            ..Load::default()
        };
        // SAFETY: a new descriptor.
        let loaded = unsafe { OwnedFd::from_raw_fd(bpf(PROGRAM_LOAD, &load)?) };
        let attach = Attach {
            target: group.as_raw_fd() as u32,
            program: loaded.as_raw_fd() as u32,
            kind: ATTACH_CGROUP_DEVICE,
            flags: 0,
        };
        bpf(PROGRAM_ATTACH, &attach).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{path::PathBuf, process::Command};

    /// A group in the machine's v2 hierarchy, removed at the end.
    struct Group(PathBuf);

    impl Drop for Group {
        fn drop(&mut self) {
            fs::remove_dir(&self.0).unwrap();
        }
    }

    #[test]
    fn the_program_lets_through_what_the_rules_name() {
        let mounted = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(Path::new);
        let unified = mounted.into_iter().find(|path| path.join("cgroup.controllers").exists());
        let path = unified.map(|path| path.join(format!("device-test-{}", std::process::id())));
        let Some(path) = path.filter(|path| fs::create_dir(path).is_ok()) else {
            eprintln!("skipped: no v2 hierarchy that takes new groups");
            return;
        };
        let may = rustix::thread::capabilities(None).map(|it| it.effective);
        if !may.is_ok_and(|it| it.contains(rustix::thread::CapabilitySet::SYS_ADMIN)) {
            fs::remove_dir(&path).unwrap();
            eprintln!("skipped: no CAP_SYS_ADMIN, for programs that judge devices");
            return;
        }
        let group = Group(path);
        let loop_control = Rule {
            block: false,
            major: Some(10),
            minor: Some(237),
            read: true,
            write: false,
            make: false,
        };
        let can_open = |device: &str| {
            let how = if device.starts_with('>') { "" } else { "<" };
            let script = format!("echo $$ > {}/cgroup.procs; : {how} {device}", group.0.display());
            Command::new("/bin/sh").args(["-c", &script]).output().unwrap().status.success()
        };
        for device in ["/dev/null", "/dev/kmsg", "/dev/loop-control", ">/dev/loop-control"] {
            assert!(can_open(device), "{device} before");
        }
        limit_by_program(&group.0, &[loop_control]).unwrap();
        for (device, expected) in [
            ("/dev/null", true),
            ("/dev/kmsg", false),
            ("/dev/loop-control", true),
            (">/dev/loop-control", false),
        ] {
            assert_eq!(can_open(device), expected, "{device}");
        }
    }
}
