//! Programs: load, and run on a packet of one's own.

use std::{
    ffi::CStr,
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use aya_obj::generated::bpf_insn;

use super::{Command, address, call, call_fd, info, object_name, raw};

/// What a program is run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Packets (`BPF_PROG_TYPE_SCHED_CLS`).
    Packets,
    /// The addresses that processes give to, and get from, sockets (`BPF_PROG_TYPE_CGROUP_SOCK_ADDR`).
    Sockets(SocketCall),
}

impl Kind {
    /// The kernel's numbers: of the kind, and of the way to attach it.
    const fn numbers(self) -> (u32, u32) {
        match self {
            Self::Packets => (3, 0),
            Self::Sockets(call) => (18, call as u32),
        }
    }
}

/// Calls of processes, as `BPF_CGROUP_INET4_BIND` and the like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum SocketCall {
    /// bind(2).
    Bind4 = 8,
    /// As `Bind4`, of IPv6.
    Bind6 = 9,
    /// connect(2).
    Connect4 = 10,
    /// As `Connect4`, of IPv6.
    Connect6 = 11,
    /// sendmsg(2) of UDP with an address.
    Sendmsg4 = 14,
    /// As `Sendmsg4`, of IPv6.
    Sendmsg6 = 15,
    /// recvmsg(2) of UDP that asks for the address.
    Recvmsg4 = 19,
    /// As `Recvmsg4`, of IPv6.
    Recvmsg6 = 20,
    /// getpeername(2).
    Getpeername4 = 29,
    /// As `Getpeername4`, of IPv6.
    Getpeername6 = 30,
}

/// How often a load is tried again that was interrupted.
const INTERRUPTIONS: usize = 20;

/// A table of records that go with the instructions.
#[derive(Clone, Copy)]
pub struct Records<'a> {
    /// All records.
    pub bytes: &'a [u8],
    /// Bytes of one.
    pub size: usize,
    /// How many.
    pub count: usize,
}

/// A program as the kernel takes it.
pub struct Code<'a> {
    /// What it is run on.
    pub kind: Kind,
    /// Its name, of which 15 bytes are kept.
    pub name: &'a str,
    /// Instructions, all references resolved.
    pub instructions: &'a [bpf_insn],
    /// The object's licence.
    pub license: &'a CStr,
    /// The object's type information, and what it says of functions and of lines.
    pub types: Option<(BorrowedFd<'a>, Records<'a>, Records<'a>)>,
}

#[repr(C)]
#[derive(Default)]
struct LoadRequest {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    ifindex: u32,
    expected_attach_type: u32,
    btf_fd: u32,
    function_size: u32,
    functions: u64,
    function_count: u32,
    line_size: u32,
    lines: u64,
    line_count: u32,
    attach_btf_id: u32,
}

/// Loads a program.
///
/// # Errors
/// The kernel's error, and what the verifier says.
pub fn load(code: &Code<'_>) -> Result<OwnedFd, (io::Error, String)> {
    // The log costs time and memory: it is asked for only where the first try fails.
    load_with(code, &mut []).or_else(|_| {
        let mut log = vec![0; 1 << 20];
        load_with(code, &mut log).map_err(|error| {
            let end = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
            (error, String::from_utf8_lossy(&log[..end]).into_owned())
        })
    })
}

fn load_with(code: &Code<'_>, log: &mut [u8]) -> io::Result<OwnedFd> {
    let (kind, expected_attach_type) = code.kind.numbers();
    let mut request = LoadRequest {
        kind,
        expected_attach_type,
        instruction_count: code.instructions.len() as u32,
        instructions: address(code.instructions.as_ptr()),
        license: address(code.license.as_ptr()),
        name: object_name(code.name),
        ..Default::default()
    };
    if let Some((btf, functions, lines)) = code.types {
        request.btf_fd = raw(btf);
        request.function_size = functions.size as u32;
        request.functions = address(functions.bytes.as_ptr());
        request.function_count = functions.count as u32;
        request.line_size = lines.size as u32;
        request.lines = address(lines.bytes.as_ptr());
        request.line_count = lines.count as u32;
    }
    if !log.is_empty() {
        request.log_level = 1;
        request.log = address(log.as_mut_ptr());
        request.log_size = log.len() as u32;
    }
    for _ in 0..INTERRUPTIONS {
        // SAFETY: all slices live on and have the lengths that are told.
        match unsafe { call_fd(Command::ProgLoad, &mut request) } {
            // The verifier stops when a signal comes.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            outcome => return outcome,
        }
    }
    Err(io::ErrorKind::WouldBlock.into())
}

#[repr(C)]
#[derive(Default)]
struct ProgramInfo {
    kind: u32,
    id: u32,
}

/// The kernel's number of a program.
pub fn id(program: BorrowedFd<'_>) -> io::Result<u32> {
    // SAFETY: `ProgramInfo` is the beginning of `bpf_prog_info`.
    let info: ProgramInfo = unsafe { info(program)? };
    Ok(info.id)
}

/// A packet for a [test run](crate::Datapath::test_run).
#[derive(Clone, Copy, Debug, Default)]
pub struct Packet<'a> {
    /// The frame, from its Ethernet header on.
    pub frame: &'a [u8],
    /// The device that it is at, of the thread's network namespace; 0: the loopback device.
    pub ifindex: u32,
    /// Payload bytes of each segment that it is to be cut into; 0: none.
    pub gso_size: u32,
    /// How often it is run (in place: the programs see what the run before has made of it); 0: once.
    pub repeat: u32,
}

/// What came of a test run.
#[derive(Clone, Debug)]
pub struct Run {
    /// What the program returned: -1 (next), 2 (drop), 7 (redirect).
    pub action: i32,
    /// The frame as the program left it.
    pub frame: Vec<u8>,
    /// Nanoseconds of one run, on average.
    pub duration: u32,
}

#[repr(C)]
#[derive(Default)]
struct RunRequest {
    program: u32,
    returned: u32,
    input_size: u32,
    output_size: u32,
    input: u64,
    output: u64,
    repeat: u32,
    duration: u32,
    context_input_size: u32,
    context_output_size: u32,
    context_input: u64,
    context_output: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    pad: u32,
}

/// `struct __sk_buff` as far as `gso_size`, in words.
const CONTEXT_WORDS: usize = 45;
/// The words in it that are set.
const CONTEXT_IFINDEX: usize = 10;
const CONTEXT_GSO_SIZE: usize = 44;
/// Room for what programs make longer.
const GROWTH: usize = 2048;

/// Runs a program on a packet. Redirects are decided, but not done.
pub fn test_run(program: &OwnedFd, packet: &Packet<'_>) -> io::Result<Run> {
    let mut context = [0_u32; CONTEXT_WORDS];
    context[CONTEXT_IFINDEX] = packet.ifindex;
    context[CONTEXT_GSO_SIZE] = packet.gso_size;
    let mut frame = vec![0; packet.frame.len() + GROWTH];
    let mut request = RunRequest {
        program: raw(program.as_fd()),
        input_size: packet.frame.len() as u32,
        output_size: frame.len() as u32,
        input: address(packet.frame.as_ptr()),
        output: address(frame.as_mut_ptr()),
        repeat: packet.repeat,
        context_input_size: size_of_val(&context) as u32,
        context_input: address(context.as_ptr()),
        ..Default::default()
    };
    // SAFETY: all buffers live on and have the lengths that are told.
    unsafe { call(Command::ProgTestRun, &mut request)? };
    frame.truncate(request.output_size as usize);
    Ok(Run {
        action: request.returned.cast_signed(),
        frame,
        duration: request.duration,
    })
}
