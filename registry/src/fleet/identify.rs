//! Who a machine is that wants to enrol: a new host, one that is known, or one to refuse.
//!
//! Address and UUID are one identity. Where they point to different hosts, or to half of one, nobody can
//! tell which machine is the real one: the newcomer is refused and shown, and the host stays as it is.

use bulkhead_api::id::{HostId, IdError, MacAddr, SiteName, SystemUuid};

/// A machine, enrolled or about to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identified {
    /// Its id.
    pub id: HostId,
    /// Where it is.
    pub site: SiteName,
    /// Hardware address of its boot NIC.
    pub mac: MacAddr,
    /// Its system UUID.
    pub uuid: Option<SystemUuid>,
}

/// Who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Nobody enrolled has its address, its UUID or its id.
    New,
    /// This host, booted again.
    Same,
    /// Another host's identity; one sentence.
    Taken(String),
}

/// The id of a machine: `{site}-{last three octets of the MAC}`.
///
/// # Errors
/// None for the names that exist; the types cannot say so.
pub fn host_id(site: &SiteName, mac: MacAddr) -> Result<HostId, IdError> {
    let [_, _, _, a, b, c] = mac.octets();
    format!("{site}-{a:02x}{b:02x}{c:02x}").parse()
}

/// The name under which a machine that is no host is shown, where its id is another machine's.
///
/// # Errors
/// As [`host_id`].
pub fn alias(site: &SiteName, mac: MacAddr, uuid: Option<SystemUuid>) -> Result<HostId, IdError> {
    let id = host_id(site, mac)?;
    let [a, b, c, ..] = mac.octets();
    let tail = match uuid.map(SystemUuid::octets) {
        Some([d, e, f, g, ..]) => format!("-{d:02x}{e:02x}{f:02x}{g:02x}"),
        None => String::new(),
    };
    format!("{id}-{a:02x}{b:02x}{c:02x}{tail}").parse()
}

/// A UUID that tells machines apart; firmware without one sends all zeros or all ones.
#[must_use]
pub fn real(uuid: Option<SystemUuid>) -> Option<SystemUuid> {
    uuid.filter(|uuid| !uuid.is_unset())
}

/// Compares a machine with the hosts that share its id, its address or its UUID.
#[must_use]
pub fn identify(machine: &Identified, alike: &[Identified]) -> Verdict {
    let text = |uuid: Option<SystemUuid>| {
        uuid.map_or_else(|| "no system UUID".to_owned(), |uuid| format!("system UUID {uuid}"))
    };
    for host in alike {
        let Identified { id, site, mac, uuid } = host;
        if host == machine {
            continue;
        }
        if *mac == machine.mac && *uuid != machine.uuid {
            return Verdict::Taken(format!(
                "MAC address {mac} belongs to host {id} with {}; this machine has {}",
                text(*uuid),
                text(machine.uuid)
            ));
        }
        if *mac == machine.mac {
            return Verdict::Taken(format!(
                "MAC address {mac} belongs to host {id} of site {site}; delete that host first if the machine moved"
            ));
        }
        if uuid.is_some() && *uuid == machine.uuid {
            return Verdict::Taken(format!(
                "{} belongs to host {id} with MAC address {mac}; this machine has MAC address {}",
                text(*uuid),
                machine.mac
            ));
        }
        if *id == machine.id {
            return Verdict::Taken(format!(
                "host id {id} belongs to the machine with MAC address {mac}; this one's address {} ends alike",
                machine.mac
            ));
        }
    }
    if alike.contains(machine) { Verdict::Same } else { Verdict::New }
}

#[cfg(test)]
mod tests {
    use super::*;

    const U: &str = "11111111-2222-3333-4444-555555555555";
    const V: &str = "11111111-2222-3333-4444-666666666666";

    fn machine(site: &str, mac: &str, uuid: Option<&str>) -> Identified {
        let (site, mac) = (site.parse().unwrap(), mac.parse().unwrap());
        let id = host_id(&site, mac).unwrap();
        Identified { id, site, mac, uuid: uuid.map(|u| u.parse().unwrap()) }
    }

    fn verdict(new: &Identified, known: &[Identified]) -> Result<bool, String> {
        match identify(new, known) {
            Verdict::New => Ok(true),
            Verdict::Same => Ok(false),
            Verdict::Taken(why) => Err(why),
        }
    }

    #[test]
    fn a_machine_is_new_once_and_the_same_from_then_on() {
        let a = machine("sjc-01", "52:54:00:00:00:01", Some(U));
        assert_eq!(a.id.as_str(), "sjc-01-000001");
        assert_eq!(verdict(&a, &[]), Ok(true));
        assert_eq!(verdict(&a, std::slice::from_ref(&a)), Ok(false));
        let bare = machine("sjc-01", "52:54:00:00:00:02", None);
        assert_eq!(verdict(&bare, std::slice::from_ref(&bare)), Ok(false));
    }

    #[test]
    fn a_clone_is_refused_with_the_name_of_the_host_it_clones() {
        let a = machine("sjc-01", "52:54:00:00:00:01", Some(U));
        let known = [a];
        for (clone, says) in [
            (machine("sjc-01", "52:54:00:00:00:02", Some(U)), "system UUID 11111111"),
            (
                machine("sjc-01", "52:54:00:00:00:01", Some(V)),
                "MAC address 52:54:00:00:00:01 belongs",
            ),
            (machine("sjc-01", "52:54:00:00:00:01", None), "this machine has no system UUID"),
            (machine("fra-01", "52:54:00:00:00:01", Some(U)), "of site sjc-01"),
            (machine("sjc-01", "52:54:99:00:00:01", Some(V)), "ends alike"),
        ] {
            let why = verdict(&clone, &known).unwrap_err();
            assert!(why.contains("sjc-01-000001") && why.contains(says), "{why}");
        }
    }

    #[test]
    fn one_that_is_half_of_two_hosts_is_refused() {
        let known = [
            machine("sjc-01", "52:54:00:00:00:01", Some(U)),
            machine("sjc-01", "52:54:00:00:00:02", Some(V)),
        ];
        assert!(verdict(&machine("sjc-01", "52:54:00:00:00:01", Some(V)), &known).is_err());
    }

    #[test]
    fn a_uuid_that_is_not_set_is_none() {
        assert_eq!(real(Some(SystemUuid::new([0; 16]))), None);
        assert_eq!(real(Some(SystemUuid::new([0xff; 16]))), None);
        assert!(real(Some(U.parse().unwrap())).is_some());
    }
}
