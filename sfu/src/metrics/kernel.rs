//! Datagrams that the kernel dropped because a socket's receive queue was full: read from `/proc/net` at a scrape, as
//! `udp(7)` and `proc_net(5)` give them. The one loss that the node itself cannot see.

use std::net::SocketAddr;

/// `None` where `/proc/net` cannot be read or does not have the socket.
pub(super) fn receive_overflows(socket: SocketAddr) -> Option<u64> {
    let path = if socket.is_ipv4() { "/proc/self/net/udp" } else { "/proc/self/net/udp6" };
    find(&std::fs::read_to_string(path).ok()?, socket)
}

/// The second column is the local address, the last one the drops.
fn find(table: &str, socket: SocketAddr) -> Option<u64> {
    let wanted = local_address(socket);
    let line = table.lines().find(|line| line.split_ascii_whitespace().nth(1) == Some(wanted.as_str()))?;
    line.split_ascii_whitespace().last()?.parse().ok()
}

/// Words of the address as the machine reads them, in hexadecimal, and the port.
fn local_address(socket: SocketAddr) -> String {
    let word = |bytes: &[u8]| bytes.try_into().map_or(0, u32::from_ne_bytes);
    let octets = match socket.ip() {
        std::net::IpAddr::V4(ip) => ip.octets().to_vec(),
        std::net::IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let address: String = octets.chunks(4).map(|bytes| format!("{:08X}", word(bytes))).collect();
    format!("{address}:{:04X}", socket.port())
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn the_line_of_the_socket_is_found_by_address_and_port() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref \
                     pointer drops\n  1: 00000000:9C40 00000000:0000 07 0:0 00:0 0 0 0 1 2 0000 3\n  2: 0100007F:9C40 \
                     00000000:0000 07 0:0 00:0 0 0 0 1 2 0000 41\n";
        if cfg!(target_endian = "little") {
            assert_eq!(find(table, "127.0.0.1:40000".parse().unwrap()), Some(41));
        }
        assert_eq!(find(table, "0.0.0.0:40000".parse().unwrap()), Some(3));
        assert_eq!(find(table, "0.0.0.0:40001".parse().unwrap()), None);
        assert_eq!(find("", "0.0.0.0:40000".parse().unwrap()), None);
    }

    #[test]
    fn a_real_queue_that_overflows_is_seen() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        assert_eq!(receive_overflows(address), Some(0));
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        // More than any default queue holds: nobody reads.
        for _ in 0..2_000 {
            sender.send_to(&[0; 1_200], address).unwrap();
        }
        assert!(receive_overflows(address).unwrap() > 0);
    }
}
