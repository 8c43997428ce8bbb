//! Lists come in pages, each of which takes several times the memory that what is kept of it takes.

/// Gives back to the system what has been freed. The allocator would keep it for another list, which comes after
/// hours, if ever.
pub fn give_back() {
    // SAFETY: it takes no pointers, and may be called at any time from any thread.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}
