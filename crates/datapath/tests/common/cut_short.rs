//! Kills a process at a system call of its choice: every state that it can leave behind, without a line in the
//! program for it.

use std::{
    io,
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    process::{Child, Command, ExitStatus, Stdio},
    ptr,
};

/// `struct ptrace_syscall_info` (linux/ptrace.h), of a system call that is about to begin.
#[repr(C)]
#[derive(Default)]
struct Info {
    op: u8,
    pad: [u8; 3],
    arch: u32,
    instruction_pointer: u64,
    stack_pointer: u64,
    number: u64,
    arguments: [u64; 6],
}

/// `PTRACE_SYSCALL_INFO_ENTRY`.
const ENTRY: u8 = 1;

/// Commands of bpf(2) that leave something behind: write an entry, pin, replace a link's program, write entries.
const BPF_COMMANDS: [u64; 4] = [2, 6, LINK_UPDATE, 26];
const LINK_UPDATE: u64 = 29;

/// Which system calls count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moments {
    /// All that leave something behind.
    All,
    /// Those that replace the program of a link.
    Replacements,
}

impl Info {
    fn counts(&self, moments: Moments) -> bool {
        match moments {
            Moments::All => self.leaves_something(),
            Moments::Replacements => {
                self.leaves_something()
                    && self.number.cast_signed() == libc::SYS_bpf
                    && self.arguments[0] == LINK_UPDATE
            }
        }
    }

    /// Whether the call changes what others will find.
    fn leaves_something(&self) -> bool {
        if self.op != ENTRY {
            return false;
        }
        let number = self.number.cast_signed();
        match number {
            libc::SYS_bpf => BPF_COMMANDS.contains(&self.arguments[0]),
            libc::SYS_rename
            | libc::SYS_renameat
            | libc::SYS_renameat2
            | libc::SYS_unlink
            | libc::SYS_unlinkat
            | libc::SYS_rmdir
            | libc::SYS_mkdir
            | libc::SYS_mkdirat
            // Filters.
            | libc::SYS_sendto => true,
            _ => false,
        }
    }
}

/// Runs a command of one thread, and kills it where the `n`th (from 0) of these calls would be.
/// `false`: it has come to its end before, and succeeded.
#[track_caller]
#[allow(
    clippy::zombie_processes,
    reason = "`stopped` waits for its end, as for its stops"
)]
pub fn killed_at(n: usize, moments: Moments, command: &mut Command) -> bool {
    // SAFETY: one system call between fork and exec.
    unsafe {
        command.pre_exec(|| done(libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0)));
    }
    let mut child = command.stdout(Stdio::null()).spawn().unwrap();
    let pid = child.id().cast_signed();
    assert!(stopped(pid).is_none(), "stops where it is executed");
    request(
        libc::PTRACE_SETOPTIONS,
        pid,
        libc::PTRACE_O_EXITKILL | libc::PTRACE_O_TRACESYSGOOD,
    );
    let mut seen = 0;
    loop {
        request(libc::PTRACE_SYSCALL, pid, 0);
        if let Some(status) = stopped(pid) {
            assert!(status.success(), "{command:?}: {status}");
            return false;
        }
        if info(pid).counts(moments) {
            if seen == n {
                kill(&mut child);
                return true;
            }
            seen += 1;
        }
    }
}

fn kill(child: &mut Child) {
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.signal(), Some(libc::SIGKILL), "{status}");
}

/// Waits until it stops or ends; the status with which it has ended.
fn stopped(pid: i32) -> Option<ExitStatus> {
    let mut status = 0;
    // SAFETY: the status is written to.
    let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    assert_eq!(waited, pid, "{}", io::Error::last_os_error());
    (!libc::WIFSTOPPED(status)).then(|| ExitStatus::from_raw(status))
}

fn request(what: u32, pid: i32, argument: i32) {
    // SAFETY: these requests take a number.
    done(unsafe { libc::ptrace(what, pid, 0, libc::c_long::from(argument)) }).unwrap();
}

fn info(pid: i32) -> Info {
    let mut info = Info::default();
    // SAFETY: no more is written than there is room for.
    done(unsafe {
        libc::ptrace(
            libc::PTRACE_GET_SYSCALL_INFO,
            pid,
            size_of::<Info>(),
            ptr::from_mut(&mut info),
        )
    })
    .unwrap();
    info
}

fn done(returned: libc::c_long) -> io::Result<()> {
    if returned < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
