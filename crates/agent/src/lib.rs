//! The node agent: wires objects, compilers and kernel together; endpoint life cycle
