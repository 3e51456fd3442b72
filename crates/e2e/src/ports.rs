//! Ports for programs that are told theirs before they start.

use std::net::TcpListener;

/// Ports of this host that nobody has, all different. They lie below those that the system gives to outgoing connections, which it
/// may do at any moment between now and the start of the program.
///
/// # Panics
/// When there are not so many.
#[must_use]
pub fn free_ports<const COUNT: usize>() -> [u16; COUNT] {
    // All are held at the same time, so that they differ.
    let mut held = Vec::new();
    for _ in 0..10_000 {
        if held.len() == COUNT {
            break;
        }
        held.extend(TcpListener::bind(("127.0.0.1", fastrand::u16(10_000..32_000))));
    }
    assert_eq!(held.len(), COUNT, "there are not enough free ports");
    std::array::from_fn(|place: usize| held[place].local_addr().expect("bound").port())
}
