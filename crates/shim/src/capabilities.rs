//! Gives up every capability outside the wanted set, before execve.
//!
//! Permitted and effective stay as they are: execve computes them anew, from the bounding set for user 0 and from the
//! ambient set for others. So a seccomp filter can be installed in between without no_new_privs, and has to allow
//! nothing but execve.

use crate::{Result, sys::check};

const BOUNDING_DROP: libc::c_int = 24;
const AMBIENT: libc::c_int = 47;
const AMBIENT_RAISE: libc::c_ulong = 2;
const AMBIENT_CLEAR_ALL: libc::c_ulong = 4;
const VERSION_3: u32 = 0x2008_0522;

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Sets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

pub(crate) fn limit(bounding: u64, ambient: u64) -> Result<()> {
    let mut sets = read()?;
    for half in &mut sets {
        half.effective = half.permitted;
    }
    write(&sets)?;
    for capability in (0..64).filter(|capability| bounding & (1 << capability) == 0) {
        // SAFETY: prctl with numbers only.
        let dropped = unsafe { libc::prctl(BOUNDING_DROP, capability, 0, 0, 0) };
        if dropped < 0 && std::io::Error::last_os_error().raw_os_error() == Some(libc::EINVAL) {
            // Beyond the last one that this kernel knows.
            break;
        }
        check(format_args!("drop capability {capability}"), dropped)?;
    }
    let permitted = u64::from(sets[0].permitted) | u64::from(sets[1].permitted) << 32;
    let ambient = ambient & permitted & bounding;
    sets[0].inheritable = ambient as u32;
    sets[1].inheritable = (ambient >> 32) as u32;
    write(&sets)?;
    // SAFETY: prctl with numbers only.
    unsafe {
        check("clear ambient capabilities", libc::prctl(AMBIENT, AMBIENT_CLEAR_ALL, 0, 0, 0))?;
        for capability in (0..64).filter(|capability| ambient & (1 << capability) != 0) {
            let raised = libc::prctl(AMBIENT, AMBIENT_RAISE, capability, 0, 0);
            check(format_args!("raise ambient capability {capability}"), raised)?;
        }
    }
    Ok(())
}

fn read() -> Result<[Sets; 2]> {
    let header = [VERSION_3, 0];
    let mut sets = [Sets::default(); 2];
    // SAFETY: header and sets have the layout that version 3 asks for.
    let result = unsafe { libc::syscall(libc::SYS_capget, &header, sets.as_mut_ptr()) };
    check("read capabilities", result as libc::c_int)?;
    Ok(sets)
}

fn write(sets: &[Sets; 2]) -> Result<()> {
    let header = [VERSION_3, 0];
    // SAFETY: header and sets have the layout that version 3 asks for.
    let result = unsafe { libc::syscall(libc::SYS_capset, &header, sets.as_ptr()) };
    check("set capabilities", result as libc::c_int).map(drop)
}
