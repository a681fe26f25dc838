//! Whether a program has come so far as to listen, seen from outside its namespace.

use std::fs;

use crate::process::ProcessId;

/// A transport and a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Port {
    /// A TCP listener.
    Tcp(u16),
    /// A bound UDP socket.
    Udp(u16),
}

/// Whether a socket table of proc(5) (`/proc/PID/net/tcp`, `udp`) has a socket that awaits peers on `port`:
/// TCP in state 0A (listen), UDP in state 07 (not connected).
fn awaits(table: &str, port: u16, state: &str) -> bool {
    table.lines().skip(1).any(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let local = fields.next().and_then(|address| address.rsplit_once(':'));
        let at = local.and_then(|(_, port)| u16::from_str_radix(port, 16).ok());
        at == Some(port) && fields.nth(1) == Some(state)
    })
}

/// Whether anybody in the network namespace of `process` listens on `port`.
#[must_use]
pub fn listens(process: ProcessId, port: Port) -> bool {
    let (tables, number, state) = match port {
        Port::Tcp(number) => (["tcp", "tcp6"], number, "0A"),
        Port::Udp(number) => (["udp", "udp6"], number, "07"),
    };
    // A table that cannot be read is one of a process that ended: nobody listens there.
    tables.iter().any(|table| {
        fs::read_to_string(format!("/proc/{}/net/{table}", process.pid))
            .is_ok_and(|text| awaits(&text, number, state))
    })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_listener_is_seen_and_a_closed_one_is_not() {
        let me = ProcessId::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = Port::Tcp(listener.local_addr().unwrap().port());
        assert!(listens(me, port));
        drop(listener);
        assert!(!listens(me, port));
    }

    #[test]
    fn a_connection_on_the_port_is_not_a_listener() {
        let table =
            "  sl  local_address rem_address   st\n   0: 0100007F:1D13 0100007F:9C40 01 0\n";
        assert!(!awaits(table, 0x1d13, "0A"));
        assert!(awaits(&table.replace(" 01 0", " 0A 0"), 0x1d13, "0A"));
    }
}
