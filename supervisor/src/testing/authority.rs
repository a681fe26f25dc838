//! A certificate authority of a fleet.

use bulkhead_api::time::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, SanType, date_time_ymd,
};

/// First and last day of a certificate, in days from today.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DayRange(pub(crate) i64, pub(crate) i64);

impl DayRange {
    /// Half of it is over.
    pub(crate) const DUE: Self = Self(-10, 2);
    /// Fresh.
    pub(crate) const FRESH: Self = Self(-1, 30);

    fn apply(self, params: &mut CertificateParams) {
        let day = |days: i64| {
            let at = Timestamp::now() + jiff::SignedDuration::from_hours(24 * days);
            let date = at.to_zoned(jiff::tz::TimeZone::UTC).date();
            let (month, day) = (date.month().try_into().unwrap(), date.day().try_into().unwrap());
            date_time_ymd(date.year().into(), month, day)
        };
        params.not_before = day(self.0);
        params.not_after = day(self.1);
    }
}

#[derive(Debug)]
pub(crate) struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    pub(crate) fn ca_pem(&self) -> &str {
        &self.pem
    }

    /// Chain and key of a site at 127.0.0.1.
    pub(crate) fn site(&self) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    /// Chain and key of a host with that identity.
    pub(crate) fn host(&self, uri: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        DayRange::FRESH.apply(&mut params);
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    /// A certificate for the key of a request.
    pub(crate) fn certify(&self, csr_der: &[u8], days: DayRange) -> String {
        let mut request =
            CertificateSigningRequestParams::from_der(&csr_der.to_vec().into()).unwrap();
        days.apply(&mut request.params);
        request.signed_by(&self.issuer).unwrap().pem()
    }

    /// A certificate for somebody else's key.
    pub(crate) fn certify_another(&self) -> String {
        let key = KeyPair::generate().unwrap();
        CertificateParams::default().signed_by(&key, &self.issuer).unwrap().pem()
    }
}
