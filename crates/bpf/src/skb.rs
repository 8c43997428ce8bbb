//! The packet in the kernel's hands: a thin layer over `__sk_buff` and the helpers that take it.

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_INVALIDATE_HASH, BPF_F_PSEUDO_HDR},
    helpers,
};

/// Length of an Ethernet header.
pub const ETH_LEN: usize = 14;

/// `PACKET_HOST`: the frame is for this host.
const PACKET_HOST: u32 = 0;

/// `BPF_ADJ_ROOM_MAC`: room is made or taken between the MAC and the network header.
const ADJ_ROOM_MAC: u32 = 1;

/// Carried in `tc_index` by a packet that a program has resolved and sent on its way, so that the
/// egress hooks it crosses need not look again. Reading it costs one instruction, where asking for
/// the tunnel key is a helper call. It is taken off whatever is handed to the stack, so that only
/// the programs can have put it on what leaves.
const RESOLVED: u32 = 0x746f;

/// A packet. Copies name the same packet.
#[derive(Clone, Copy)]
pub struct Skb(*mut __sk_buff);

/// Reads one field of the context; the verifier turns it into a load from the kernel's `sk_buff`.
macro_rules! field {
    ($self:ident.$name:ident) => {{
        // SAFETY: the context is valid for the whole run of the program.
        unsafe { (*$self.0).$name }
    }};
}

impl Skb {
    /// The packet that a program was called with.
    #[inline(always)]
    pub const fn new(context: *mut __sk_buff) -> Self {
        Self(context)
    }

    /// For helpers.
    #[inline(always)]
    pub const fn as_ptr(self) -> *mut __sk_buff {
        self.0
    }

    /// Bytes from the Ethernet header on.
    #[inline(always)]
    pub fn len(self) -> u32 {
        field!(self.len)
    }

    /// The device at whose hook the program runs.
    #[inline(always)]
    pub fn ifindex(self) -> u32 {
        field!(self.ifindex)
    }

    /// The EtherType, as it lies on the wire.
    #[inline(always)]
    pub fn protocol(self) -> u16 {
        field!(self.protocol) as u16
    }

    /// Whether a VLAN tag was taken off the frame.
    #[inline(always)]
    pub fn is_vlan(self) -> bool {
        field!(self.vlan_present) != 0
    }

    /// Payload bytes of each segment that the packet will be cut into; 0: it is not to be cut.
    #[inline(always)]
    pub fn gso_size(self) -> u32 {
        field!(self.gso_size)
    }

    /// Makes the kernel take the frame as addressed to this host, whatever its destination MAC.
    #[inline(always)]
    pub fn set_for_host(self) {
        if field!(self.pkt_type) != PACKET_HOST {
            // SAFETY: a helper call on a valid context. It fails for other types only.
            unsafe { helpers::bpf_skb_change_type(self.0, PACKET_HOST) };
        }
    }

    /// Whether a program sent this packet here.
    #[inline(always)]
    pub fn is_resolved(self) -> bool {
        field!(self.tc_index) == RESOLVED
    }

    /// Notes that a program has resolved the packet and sends it on.
    #[inline(always)]
    pub fn set_resolved(self) {
        // SAFETY: the context is valid, and this field may be written.
        unsafe { (*self.0).tc_index = RESOLVED }
    }

    /// Takes the note off, wherever it came from: devices that join namespaces keep it, and a pod
    /// can write it.
    #[inline(always)]
    pub fn clear_resolved(self) {
        if field!(self.tc_index) != 0 {
            // SAFETY: the context is valid, and this field may be written.
            unsafe { (*self.0).tc_index = 0 }
        }
    }

    /// A header at a constant offset, if it lies in the linear part. Valid until the next helper
    /// that changes the packet.
    #[inline(always)]
    pub fn at<T>(self, offset: usize) -> Option<*mut T> {
        let start = field!(self.data) as usize;
        let end = field!(self.data_end) as usize;
        if start + offset + size_of::<T>() > end {
            None
        } else {
            Some((start + offset) as *mut T)
        }
    }

    /// A header at a constant offset, made linear where it is not. `None`: the packet is shorter.
    #[inline(always)]
    pub fn header<T>(self, offset: usize) -> Option<*mut T> {
        if let Some(header) = self.at(offset) {
            return Some(header);
        }
        let end = (offset + size_of::<T>()) as u32;
        // SAFETY: a helper call on a valid context.
        if self.len() < end || unsafe { helpers::bpf_skb_pull_data(self.0, end) } != 0 {
            return None;
        }
        self.at(offset)
    }

    /// A copy of what lies at any offset. `None`: the packet is shorter.
    #[inline(always)]
    pub fn load<T: Copy>(self, offset: u32) -> Option<T> {
        let mut value = core::mem::MaybeUninit::<T>::uninit();
        // SAFETY: the helper writes exactly `size_of::<T>()` bytes, or (zeroed) says that it could not.
        unsafe {
            match helpers::bpf_skb_load_bytes(
                self.0.cast(),
                offset,
                value.as_mut_ptr().cast(),
                size_of::<T>() as u32,
            ) {
                0 => Some(value.assume_init()),
                _ => None,
            }
        }
    }

    /// Cuts or grows the packet to `len` bytes; makes it linear and drops its offloads.
    #[inline(always)]
    pub fn set_len(self, len: u32) -> bool {
        // SAFETY: a helper call on a valid context.
        unsafe { helpers::bpf_skb_change_tail(self.0, len, 0) == 0 }
    }

    /// Makes room of `len` bytes after the MAC header; `flags` say what for. `false`: nothing was changed.
    #[inline(always)]
    pub fn make_room_after_mac(self, len: i32, flags: u64) -> bool {
        // SAFETY: a helper call on a valid context.
        unsafe { helpers::bpf_skb_adjust_room(self.0, len, ADJ_ROOM_MAC, flags) == 0 }
    }

    /// A number that is the same for all packets of a flow.
    #[inline(always)]
    pub fn flow_hash(self) -> u32 {
        // SAFETY: a helper call on a valid context.
        unsafe { helpers::bpf_get_hash_recalc(self.0) }
    }

    /// Takes `len` bytes out after the MAC header.
    #[inline(always)]
    pub fn cut_after_mac(self, len: i32) -> bool {
        // SAFETY: a helper call on a valid context.
        unsafe { helpers::bpf_skb_adjust_room(self.0, -len, ADJ_ROOM_MAC, 0) == 0 }
    }

    /// Overwrites the packet's first `len` bytes.
    ///
    /// # Safety
    /// `from` must be readable for `len` bytes, and the verifier must see that it is.
    #[inline(always)]
    pub unsafe fn store(self, from: *const u8, len: u32) -> bool {
        // SAFETY: as the caller promises.
        unsafe {
            helpers::bpf_skb_store_bytes(self.0, 0, from.cast(), len, u64::from(BPF_F_INVALIDATE_HASH)) == 0
        }
    }

    /// Overwrites what lies at any offset. `false`: the packet is shorter.
    #[inline(always)]
    pub fn store_at<T: Copy>(self, offset: u32, value: &T) -> bool {
        let from = core::ptr::from_ref(value).cast();
        // SAFETY: a helper call on a valid context, with a value of the length that is told.
        unsafe { helpers::bpf_skb_store_bytes(self.0, offset, from, size_of::<T>() as u32, 0) == 0 }
    }

    /// Corrects a transport checksum whose pseudo-header has changed by `difference`, wherever the packet is on its
    /// way to being summed up. `false`: the packet is shorter.
    #[inline(always)]
    pub fn update_pseudo_header_checksum(self, offset: u32, difference: u32, flags: u64) -> bool {
        self.update_transport_checksum(offset, difference, flags | u64::from(BPF_F_PSEUDO_HDR))
    }

    /// The same, where what it covers of the packet itself has changed.
    #[inline(always)]
    pub fn update_transport_checksum(self, offset: u32, difference: u32, flags: u64) -> bool {
        // SAFETY: a helper call on a valid context. With a size of 0 (in the flags), the difference is what it says.
        unsafe { helpers::bpf_l4_csum_replace(self.0, offset, 0, u64::from(difference), flags) == 0 }
    }

    /// Corrects the sum that the device took over the whole packet, where it did.
    #[inline(always)]
    pub fn update_checksum(self, difference: u32) {
        // SAFETY: a helper call on a valid context. It fails where there is no such sum.
        unsafe { helpers::bpf_csum_update(self.0, difference) };
    }

    /// Writes the Ethernet addresses; `false`: there is no Ethernet header.
    #[inline(always)]
    pub fn set_macs(self, destination: [u8; 6], source: [u8; 6]) -> bool {
        let Some(macs) = self.at::<[[u8; 6]; 2]>(0) else {
            return false;
        };
        // SAFETY: `at` has checked the bounds.
        unsafe { *macs = [destination, source] };
        true
    }

    /// The source MAC address.
    #[inline(always)]
    pub fn source_mac(self) -> Option<[u8; 6]> {
        // SAFETY: `at` has checked the bounds.
        self.at::<[u8; 6]>(6).map(|mac| unsafe { *mac })
    }
}
