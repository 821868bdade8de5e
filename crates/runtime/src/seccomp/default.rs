//! The profile RuntimeDefault: what ordinary programs call, and nothing that reaches beyond the container.
//!
//! Written as groups, each with the reason why it is allowed, or for whom. What is missing here is refused with EPERM.

use super::profile::{Argument, Profile, Rule};
use seccompiler::{SeccompAction, SeccompCmpOp};

/// Files, memory, time, processes, signals and sockets of the container's own.
const ORDINARY: &str = "
    accept accept4 access arch_prctl bind cachestat chdir chmod chown connect creat dup dup2 dup3
    copy_file_range close close_range
    epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old
    eventfd eventfd2 execve execveat exit exit_group
    faccessat faccessat2 fadvise64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchownat fcntl
    fdatasync fgetxattr file_getattr file_setattr flistxattr flock fork fremovexattr fsetxattr fstat fstatfs fsync
    ftruncate futex futex_requeue futex_wait futex_waitv futex_wake futimesat
    get_robust_list get_thread_area getcpu getcwd getdents getdents64 getegid geteuid getgid getgroups getitimer
    getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid getresuid getrlimit getrusage getsid
    getsockname getsockopt gettid gettimeofday getuid getxattr getxattrat
    inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents
    io_setup io_submit ioctl ioprio_get ioprio_set
    kill landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lgetxattr link linkat listen listmount
    listns listxattr listxattrat llistxattr lremovexattr lseek lsetxattr lstat
    madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2
    mlockall mmap modify_ldt mprotect mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink mremap
    mseal msgctl msgget msgrcv msgsnd msync munlock munlockall munmap
    name_to_handle_at nanosleep newfstatat open openat openat2
    pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll prctl pread64 preadv
    preadv2 prlimit64 process_mrelease pselect6 ptrace pwrite64 pwritev pwritev2
    read readahead readlink readlinkat readv recvfrom recvmmsg recvmsg remap_file_pages removexattr removexattrat rename
    renameat renameat2 restart_syscall riscv_hwprobe rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask
    rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo
    sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler
    sched_rr_get_interval sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp select
    semctl semget semop semtimedop sendfile sendmmsg sendmsg sendto set_robust_list set_thread_area set_tid_address
    setfsgid setfsuid setgid setgroups setitimer setpgid setpriority setregid setresgid setresuid setreuid setrlimit
    setsid setsockopt setuid setxattr setxattrat shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4
    socketpair splice stat statfs statmount statx symlink symlinkat sync sync_file_range syncfs sysinfo
    tee tgkill time timer_create timer_delete timer_getoverrun timer_gettime timer_settime timerfd_create
    timerfd_gettime timerfd_settime times tkill truncate
    umask uname unlink unlinkat uprobe uretprobe utime utimensat utimes vfork vmsplice wait4 waitid write writev
    clock_adjtime clock_getres clock_gettime clock_nanosleep adjtimex alarm brk capget capset";

/// Calls that only matter to those who hold the capability that the kernel asks for as well.
const PRIVILEGED: [(&str, &str); 13] = [
    ("DAC_READ_SEARCH", "open_by_handle_at"),
    (
        "SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr move_mount \
         open_tree open_tree_attr perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog umount2 \
         unshare",
    ),
    ("SYS_BOOT", "reboot"),
    ("SYS_CHROOT", "chroot"),
    ("SYS_MODULE", "delete_module init_module finit_module"),
    ("SYS_PACCT", "acct"),
    ("SYS_PTRACE", "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev"),
    ("SYS_RAWIO", "iopl ioperm"),
    ("SYS_TIME", "settimeofday clock_settime"),
    ("SYS_TTY_CONFIG", "vhangup"),
    ("SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("SYSLOG", "syslog"),
    ("BPF", "bpf"),
];

/// Linux 2.6 compatibility and randomisation off, which debuggers use; 0xffffffff only asks.
const PERSONALITIES: [u64; 5] = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}: a new user namespace would give all capabilities inside it.
const CLONE_NAMESPACES: u64 = 0x7e02_0000;

/// Sockets to the hypervisor reach beyond the container.
const AF_VSOCK: u64 = 40;

pub(super) fn profile() -> Profile {
    let mut rules = vec![allow(ORDINARY)];
    for (capability, calls) in PRIVILEGED {
        rules.push(Rule { with: vec![capability.to_owned()], ..allow(calls) });
    }
    rules.push(Rule { with: vec!["PERFMON".to_owned()], ..allow("perf_event_open") });
    for personality in PERSONALITIES {
        rules.push(Rule {
            arguments: vec![argument(0, SeccompCmpOp::Eq, personality)],
            ..allow("personality")
        });
    }
    rules
        .push(Rule { arguments: vec![argument(0, SeccompCmpOp::Ne, AF_VSOCK)], ..allow("socket") });
    let without_admin = || vec!["SYS_ADMIN".to_owned()];
    rules.push(Rule {
        arguments: vec![argument(0, SeccompCmpOp::MaskedEq(CLONE_NAMESPACES), 0)],
        without: without_admin(),
        ..allow("clone")
    });
    // Its flags are in memory, where a filter cannot see them. Programs fall back to clone when it does not exist.
    rules.push(Rule {
        action: SeccompAction::Errno(libc::ENOSYS as u32),
        without: without_admin(),
        ..allow("clone3")
    });
    Profile { default: SeccompAction::Errno(libc::EPERM as u32), rules }
}

fn allow(calls: &str) -> Rule {
    Rule {
        calls: calls.split_whitespace().map(str::to_owned).collect(),
        action: SeccompAction::Allow,
        arguments: Vec::new(),
        with: Vec::new(),
        without: Vec::new(),
    }
}

fn argument(index: u8, comparison: SeccompCmpOp, value: u64) -> Argument {
    Argument { index, comparison, value }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{capability::Capabilities, seccomp::number::number};

    #[test]
    fn every_name_is_a_call_of_this_machine_or_known_not_to_be() {
        let elsewhere = ["riscv_hwprobe"];
        let all = profile();
        let unknown: Vec<&String> = all
            .rules
            .iter()
            .flat_map(|rule| &rule.calls)
            .filter(|name| number(name).is_none())
            .filter(|name| !elsewhere.contains(&name.as_str()))
            .collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }

    #[test]
    fn the_default_is_a_list_of_what_is_allowed_and_an_answer_for_clone3() {
        assert_eq!(profile().compile(Capabilities::default()).unwrap().len(), 2);
        assert_eq!(profile().compile(Capabilities::ALL).unwrap().len(), 1);
    }
}
