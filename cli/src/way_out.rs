//! What to do about each reason that a condition can have (law 8: no state without a way out).
//!
//! A test reads the words out of the programs that say them, and demands an entry for each.

/// Said where the reason is one that this version does not know: a later supervisor or registry has more.
pub const UNKNOWN: &str = "see the message; a later version of bulkhead may know this reason";

/// The way out of a reason, a sentence; [`UNKNOWN`] for one that this version does not know.
#[must_use]
pub fn way_out(reason: &str) -> &'static str {
    let found = WAYS.iter().flat_map(|ways| ways.iter()).find(|(known, _)| *known == reason);
    found.map_or(UNKNOWN, |(_, way)| way)
}

/// Whether this version knows the reason.
#[must_use]
pub fn is_known(reason: &str) -> bool {
    WAYS.iter().flat_map(|ways| ways.iter()).any(|(known, _)| *known == reason)
}

type Ways = &'static [(&'static str, &'static str)];

const WAYS: [Ways; 8] = [WELL, UNDER_WAY, PLACING, IMAGE, ENGINE, STATE, LINK, MACHINE];

const NOTHING: &str = "nothing to do: it is as it should be";
const WAIT: &str = "wait: it is under way; bulkhead explain says when it is stuck";

/// As it should be.
const WELL: Ways = &[
    ("Accepted", NOTHING),
    ("Admitted", "wait until it has booted and enrolled; its console says how far it came"),
    ("AllRead", NOTHING),
    ("Enrolled", NOTHING),
    ("Heard", NOTHING),
    ("Held", NOTHING),
    ("InTime", NOTHING),
    ("NotBehind", NOTHING),
    ("Observed", NOTHING),
    ("OnDisk", NOTHING),
    ("Placed", NOTHING),
    ("Proved", NOTHING),
    (
        "ProvedNotStated",
        "bulkhead host status on the host says why the statement could not be kept",
    ),
    ("ReadBack", NOTHING),
    ("Running", NOTHING),
    ("Signed", NOTHING),
    ("StreamOpen", NOTHING),
    ("TenantBoots", "nothing to do: the tenant has the machine; deleting the lease takes it back"),
];

/// On its way.
const UNDER_WAY: Ways = &[
    ("Applying", WAIT),
    (
        "Draining",
        "wait until the other leases of the host are gone; delete those that are not wanted",
    ),
    (
        "Fetching",
        "wait until the image came from the site; a slow one: look at the site's OCI cache",
    ),
    ("Granting", WAIT),
    ("HandOver", "wait: the host reboots into the tenant's image"),
    ("NotStarted", "wait until the lease is granted; condition Granted says what that waits for"),
    ("NotYet", "wait for the host's first report; its console says how far its boot came"),
    ("Rebooting", "wait until the machine asks its site for a boot file; else power-cycle it"),
    ("Releasing", "wait: the message says what of the lease is still there"),
    ("Sanitised", "wait until the registry signs a spec without the lease"),
    ("Sanitising", "wait: every resource is given out again once it was erased and has a receipt"),
    ("Starting", WAIT),
    ("Stopping", WAIT),
    (
        "WaitingForHost",
        "wait until the host accepts the spec; bulkhead explain host says why it does not",
    ),
    (
        "WaitingForSignature",
        "wait for the registry's signer; bulkhead explain host has condition SpecSigned",
    ),
    (
        "WaitingForSite",
        "wait until the site takes the spec; bulkhead explain site says whether it is connected",
    ),
    (
        "NameInQuarantine",
        "bulkhead host quarantine on that host says why; bulkhead host quarantine retry erases it again; or take another name",
    ),
    (
        "WaitsForRelease",
        "wait until the leases named there are gone; bulkhead explain lease says what holds them",
    ),
];

/// Room and rules.
const PLACING: Ways = &[
    (
        "HoldingsUnknown",
        "make the leases named there readable or delete them; nothing is placed beside the unknown",
    ),
    (
        "HostNotIsolated",
        "bulkhead host prove on the host names what is shared; end one of the two that share it",
    ),
    (
        "ResourceUnseen",
        "repair the device that the message names; the program on it is left alone, and it is looked at again",
    ),
    (
        "ResourcesUnlisted",
        "repair or take out the device that the message names; what runs goes on, and it is looked at again",
    ),
    ("NotAlone", "delete the other leases of the host; a bareMetal lease has the host to itself"),
    (
        "Shared",
        "bulkhead host prove on the host names what is shared; end one of the two that share it",
    ),
    (
        "Shortage",
        "the host has less than it reported: delete a lease on it, or delete this one and apply it again",
    ),
    ("SpecUnsupported", "change the field named there, and apply the lease under another name"),
];

/// What runs.
const IMAGE: Ways = &[
    (
        "Ended",
        "nothing to do: the program ended and its restart policy leaves it so; bulkhead logs says what it did",
    ),
    (
        "Failed",
        "bulkhead logs says why the program failed; delete the lease and apply it again to run it again",
    ),
    ("ImageAbsent", "put the image into the OCI cache of the site, or correct workload.image"),
    (
        "ImageCorrupt",
        "put the image into the OCI cache of the site again: its content is not what its digest says",
    ),
    ("ImageNotUnpacked", "build the image without what the message names, and give it another tag"),
    (
        "ImageUnusable",
        "correct the image or workload.args as the message says, and apply the lease anew",
    ),
    ("Restarting", "bulkhead logs says why the program ends; it is started again by itself"),
];

/// The supervisor's steps.
const ENGINE: Ways = &[
    ("ControlGroupUnreadable", "it is tried again; if it stays, drain the host and reboot it"),
    ("HostFiles", "make room or repair the file system that the message names; it is tried again"),
    ("Internal", "it is tried again; if it stays, tell Bulkhead's developers the message"),
    (
        "LimitsNotHeld",
        "it is tried again; if it stays, drain the host and reboot it: something else sets its limits",
    ),
    (
        "NoCacheControl",
        "nothing on this host: it runs without a cache of its own; ask for a host whose processor has resctrl",
    ),
    ("NotRecorded", "it is tried again: the ledger is written first"),
    (
        "PartitionRefused",
        "choose cpuPartition member, or free whole cores beside it; it is tried again",
    ),
    ("ResourceRefused", "the message says what the kernel refuses; it is tried again"),
    ("ResourceUnsupported", "take the resource out of the lease, or boot an image that handles it"),
    ("SystemdRefused", "it is tried again; systemctl status of the unit on the host says more"),
    (
        "SystemdUnreachable",
        "it is tried again; if it stays, reboot the host: its leases stay as they are until then",
    ),
    (
        "Unreadable",
        "repair or take out the device or file that the message names; nothing is done to it meanwhile",
    ),
];

/// What must not be forgotten, and what is proved.
const STATE: Ways = &[
    ("DisksUnreadable", "repair or take out the disk that the message names, and reboot the host"),
    (
        "ForeignDisk",
        "erase the disk by hand if nobody needs it: Bulkhead never touches what it did not make",
    ),
    ("InMemory", "put a blank disk into the host; until then a reboot forgets who held what"),
    (
        "LedgerDamaged",
        "bulkhead host ledger repair on the host rebuilds the ledger from what is there",
    ),
    ("LedgerTooNew", "boot the later image that wrote the ledger"),
    (
        "LedgerUnreadable",
        "repair the file system that holds the ledger; it is read again at every look",
    ),
    (
        "DeviceSilent",
        "the kernel's log names the device that hangs; repair it and reboot the host; others go on meanwhile",
    ),
    (
        "GrantFailed",
        "mend what the message names, or delete the lease; it is tried anew by itself, ever more seldom",
    ),
    (
        "LedgerUnwritable",
        "make room or repair the file system that holds the ledger; it is tried again",
    ),
    (
        "NoEvidence",
        "the class of the resource is wrong, not the host: tell Bulkhead's developers the message",
    ),
    ("NoIdentity", "wait until the host is enrolled: receipts are signed with its key"),
    (
        "Quarantine",
        "bulkhead host quarantine on the host says why; bulkhead host quarantine retry erases it again",
    ),
    ("ReceiptUnsigned", "it is tried again; if it stays, reboot the host so that it enrols anew"),
    (
        "ReceiptsDamaged",
        "bulkhead host receipts repair on the host keeps the damaged chain beside and begins a new one",
    ),
    (
        "ReceiptsUnwritable",
        "make room or repair the file system that holds the receipts; it is tried again",
    ),
    ("SanitisingFails", "replace the disk that the message names; it is tried again"),
    (
        "StateDamaged",
        "replace the disk or erase it by hand, and reboot the host: what it knew of its leases is lost",
    ),
    ("StateNotMade", "replace the disk that the message names, and reboot the host"),
    (
        "StateNotMounted",
        "repair or erase the state partition that the message names, and reboot the host",
    ),
    ("TwoStates", "take out the disk that came from another host, and reboot this one"),
];

/// Site, registry, certificates, specs.
const LINK: Ways = &[
    ("BadBody", "update the host's image or the registry: they are of different versions"),
    (
        "BadSignature",
        "look for who changes specs between registry and host; the old spec stays in force",
    ),
    ("CertificateExpired", "reboot the host so that it enrols anew"),
    (
        "CertificateRefused",
        "bulkhead describe host says whether it was deleted; a host that is wanted enrols at its next boot",
    ),
    ("ClockBehind", "set the host's clock, or repair the time source of its site"),
    (
        "EnrolmentRefused",
        "bulkhead describe host names the host whose identity this machine has; delete the one that is gone",
    ),
    ("Expired", "bring the site's link to the registry back: a new spec is signed every few hours"),
    ("IdentityUnusable", "reboot the host so that it enrols anew"),
    ("NoAnswer", "it is tried again; if it stays, look at what the message names"),
    ("NoBootFacts", "boot the host by its site: nothing told it where it is"),
    ("NoFleetCa", "build the image with the fleet's trust anchors and boot it"),
    (
        "NoSpec",
        "wait for the registry's first spec; condition SpecSigned of the host says whether it is signed",
    ),
    ("NoSpecKeys", "build the image with the fleet's trust anchors and boot it"),
    ("NoStream", "look at the site: its power, its link, journalctl -u bulkhead-site"),
    ("NotASpec", "update the registry: what it sent is no spec"),
    (
        "NotAttached",
        "wait until the host is connected to its site; condition Connected of the host says why not",
    ),
    ("NotEnrolled", "wait until the host enrolled; its console says why it is refused"),
    (
        "OldGeneration",
        "nothing if a newer one comes; else a registry was restored from an old backup: see its log",
    ),
    (
        "SignerAway",
        "start the signer: systemctl status bulkhead-registry-signer; it is tried again",
    ),
    (
        "SignerRefuses",
        "the signer's log says why: its ledger may know a later generation than a restored database",
    ),
    ("Silent", "look at the host: its power, its link, its console; its leases go on meanwhile"),
    ("SiteUnreachable", "look at the site's machine and the boot network; it is tried again"),
    ("StoreFault", "look at the registry's disk and log; it is tried again"),
    (
        "StreamEnded",
        "it is opened again; if it stays, look at the site: journalctl -u bulkhead-site",
    ),
    ("TicketNotWiped", "reboot the host: its ticket could be used by another"),
    ("TicketSpent", "reboot the host: the site makes a new ticket at every boot"),
    ("TooEarly", "set the clock of the host or of the registry: they differ"),
    (
        "UnknownKey",
        "boot an image that trusts the registry's spec key, or give the registry its old key back",
    ),
    ("WaitingForTicket", "bulkhead join-ticket SITE, and start bulkhead-site with it"),
    (
        "WrongHost",
        "look for who mixes up hosts between registry and this one; the old spec stays in force",
    ),
];

/// Machines that are not hosts, or not now.
const MACHINE: Ways = &[
    ("Given", "the tenant has the machine; deleting the lease takes it back"),
    ("Leaving", "wait until the machine reboots; else power-cycle it"),
    (
        "PowerCycle",
        "power-cycle the machine: it is not ours, so that nobody but its power can bring it back",
    ),
    ("Quarantined", "admit it in the site's spec: bulkhead explain site.spec.admission"),
    ("Refused", "the message names the host whose identity it has; delete that one if it is gone"),
    ("Returning", "power-cycle the machine: its next boot is of our image, which sanitises it"),
    (
        "Unknown",
        "it is tried again; if it stays, the message names what cannot be read on the host",
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_reason_stands_once_and_its_way_out_is_a_sentence_of_one_line() {
        let mut seen = BTreeSet::new();
        for (reason, way) in WAYS.iter().flat_map(|ways| ways.iter()) {
            assert!(seen.insert(reason), "{reason} stands twice");
            assert!(way.len() > 20 && way.len() < 120 && !way.ends_with('.'), "{reason}: {way}");
            assert_eq!(way_out(reason), *way);
        }
        assert_eq!(way_out("Whatever"), UNKNOWN);
    }
}
