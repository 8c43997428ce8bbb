//! TCP, UDP, ICMP and HTTP echo server and client that report the addresses they saw
