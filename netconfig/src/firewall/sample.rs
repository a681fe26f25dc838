//! Desired states for tests.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bulkhead_api::id::{LeaseId, MacAddr};
use bulkhead_api::network::{Egress, IpPrefix, NetworkId, PortKind, Subnet};

use super::ruleset::Limit;
use super::{Access, HostService, Traffic, UplinkService};
use crate::model::{
    Desired, Network, Port, PortId, Segment, TenantNumber, Underlay, Uplink, Vxlan,
};

pub(crate) fn id(tenant: u16, network: u16) -> NetworkId {
    NetworkId {
        tenant: format!("t{tenant}").parse().unwrap(),
        name: format!("n{network}").parse().unwrap(),
    }
}

pub(crate) fn port(tenant: u16, lease: u16, network: u16) -> PortId {
    let id = id(tenant, network);
    let lease = LeaseId { tenant: id.tenant, name: format!("l{lease}").parse().unwrap() };
    PortId { lease, network: id.name }
}

pub(crate) fn mac(tenant: u16, lease: u16, network: u16) -> MacAddr {
    let [a, b] = tenant.to_be_bytes();
    MacAddr::new([0x52, a, b, 0, lease.to_be_bytes()[1], network.to_be_bytes()[1]])
}

pub(crate) fn prefix(text: &str) -> IpPrefix {
    text.parse().unwrap()
}

/// Tenants 1 to `tenants` with `networks` networks of `ports` ports each; every tenant its own /16 of 10.0.0.0/8.
pub(crate) fn desired(tenants: u16, networks: u16, ports: u16) -> Desired {
    let mut desired = Desired {
        underlay: Underlay {
            uplink: Some(Uplink {
                members: vec!["eno1".parse().unwrap()],
                bond: None,
                mtu: 9000,
                addresses: Vec::new(),
            }),
            vxlan: Some(Vxlan {
                address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
                port: 4789,
                remotes: [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2))].into(),
            }),
            vlans: Vec::new(),
        },
        ..Desired::default()
    };
    for tenant in 1..=tenants {
        for network in 1..=networks {
            add(&mut desired, tenant, network, ports);
        }
    }
    desired
}

pub(crate) fn add(desired: &mut Desired, tenant: u16, network: u16, ports: u16) {
    let id = id(tenant, network);
    let number = TenantNumber::try_from(tenant).unwrap();
    desired.tenants.insert(id.tenant.clone(), number);
    let [a, b] = tenant.to_be_bytes();
    let v4 = |host: u8| Ipv4Addr::new(10 + a, b, network.to_be_bytes()[1], host);
    let v6 = |host: u16| Ipv6Addr::new(0xfd00, tenant, network, 0, 0, 0, 0, host);
    let subnets = vec![
        Subnet { prefix: IpPrefix::around(v4(0).into(), 24), gateway: Some(v4(1).into()) },
        Subnet { prefix: IpPrefix::around(v6(0).into(), 64), gateway: Some(v6(1).into()) },
    ];
    let vni = u32::from(tenant) * 100 + u32::from(network);
    let spec = Network {
        segment: Segment::Vni(vni.try_into().unwrap()),
        subnets,
        mtu: 1450,
        ports_talk: false,
        peers: std::collections::BTreeSet::new(),
        egress: if network == 1 { Egress::All } else { Egress::Deny },
    };
    desired.networks.insert(id, spec);
    for lease in 1..=ports {
        let host = 10 + lease.to_be_bytes()[1];
        let spec = Port {
            kind: PortKind::Veth,
            mac: mac(tenant, lease, network),
            addresses: vec![v4(host).into(), v6(host.into()).into()],
            min_mbps: 0,
            max_mbps: 0,
            qos: 0,
            trust: false,
        };
        desired.ports.insert(port(tenant, lease, network), spec);
    }
}

pub(crate) fn access() -> Access {
    let limit = Limit { packets_a_second: 100, burst: 200 };
    Access {
        services: vec![
            HostService {
                traffic: Traffic::Udp(67),
                addresses: [IpAddr::V4(Ipv4Addr::BROADCAST)].into(),
                limit,
            },
            HostService {
                traffic: Traffic::Echo,
                addresses: std::collections::BTreeSet::new(),
                limit: Limit { packets_a_second: 10, burst: 20 },
            },
        ],
        uplink_services: vec![UplinkService {
            traffic: Traffic::Tcp(179),
            from: vec![prefix("192.0.2.0/24")],
        }],
        tunnel_ends: Vec::new(),
        closed: vec![prefix("198.51.100.0/24"), prefix("2001:db8:f::/48")],
        vrfs: true,
    }
}
