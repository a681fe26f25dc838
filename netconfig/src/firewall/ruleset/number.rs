//! Numbers of what packets carry.

/// Type of a frame with IPv4.
pub const ETHER_IP4: u128 = 0x0800;
/// Type of a frame with ARP.
pub const ETHER_ARP: u128 = 0x0806;
/// Type of a frame with IPv6.
pub const ETHER_IP6: u128 = 0x86dd;
/// Protocol number of ICMP.
pub const ICMP: u128 = 1;
/// Protocol number of TCP.
pub const TCP: u128 = 6;
/// Protocol number of UDP.
pub const UDP: u128 = 17;
/// Protocol number of ICMPv6.
pub const ICMP6: u128 = 58;
/// ICMP echo request.
pub const ECHO_REQUEST: u128 = 8;
/// ICMPv6 echo request (RFC 4443, 4.1).
pub const ECHO_REQUEST6: u128 = 128;
/// Router advertisement (RFC 4861, 4.2).
pub const ROUTER_ADVERTISEMENT: u128 = 134;
/// Neighbour solicitation (RFC 4861, 4.3).
pub const NEIGHBOUR_SOLICITATION: u128 = 135;
/// Neighbour advertisement (RFC 4861, 4.4).
pub const NEIGHBOUR_ADVERTISEMENT: u128 = 136;
/// Redirect (RFC 4861, 4.5).
pub const REDIRECT: u128 = 137;
/// Multicast listener report, version 2 (RFC 3810, 5.2).
pub const LISTENER_REPORT: u128 = 143;
/// Port that DHCP servers send from and are sent to.
pub const DHCP_SERVER: u128 = 67;
/// Port of DHCP clients.
pub const DHCP_CLIENT: u128 = 68;
/// Port that DHCPv6 servers send from and are sent to.
pub const DHCP6_SERVER: u128 = 547;
/// Conntrack: the flow was seen both ways.
pub const ESTABLISHED: u128 = 2;
/// Conntrack: the packet belongs to a flow that was.
pub const RELATED: u128 = 4;
