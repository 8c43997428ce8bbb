//! The user side of the kernel: load, attach, pin and replace programs; typed maps
