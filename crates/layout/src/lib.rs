//! The compiler from nodes and blocks to routes and rows of the abi
