//! Keys made once on this machine: Secure Boot (PK, KEK, db), the firmware's variables that hold them, and the key that
//! signs image manifests. A fleet in production brings its own.

use ring::rand::SystemRandom;
use ring::signature::Ed25519KeyPair;

use crate::cache::{Inputs, Part};
use crate::command::CommandError;
use crate::files::{self, FileError};
use crate::layout::Layout;
use crate::toolbox;

// Never made anew: what was signed with the old ones stays valid.
const SECURE_BOOT: &str = r#"umask 077; cd /keys
for name in PK KEK db; do
  [ -e $name.key ] || openssl req -new -x509 -newkey rsa:2048 -nodes -sha256 -days 3650 -subj "/CN=Bulkhead test $name/" -keyout $name.key -out $name.crt 2> /dev/null
done
owner=a0baa8a3-041d-48a8-bc87-c36d121b5e3d
virt-fw-vars -i /usr/share/OVMF/OVMF_VARS_4M.fd -o /out/vars-sb.fd --set-pk $owner PK.crt --add-kek $owner KEK.crt --add-db $owner db.crt --secure-boot > /dev/null 2>&1"#;

/// Keys could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The random number generator or the key's form.
    #[error("{0} manifest key")]
    Manifest(&'static str),
    /// A program.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
}

/// `keys/{PK,KEK,db}.{key,crt}` and `vars-sb.fd`: the firmware's variable store with Secure Boot on and these keys enrolled.
///
/// # Errors
/// A program's or a file's.
pub fn secure_boot(layout: &Layout) -> Result<(), KeyError> {
    let outputs = [layout.out.join("vars-sb.fd"), layout.keys().join("db.key")];
    let stamps = layout.stamps();
    let part = Part { name: "secure boot keys", stamps: &stamps, outputs: &outputs };
    let inputs = Inputs::of_recipe(include_str!("keys.rs"));
    part.make(&inputs, || {
        Ok::<_, KeyError>(toolbox::run::<&str>(layout, SECURE_BOOT, &[]).map(|_| ())?)
    })?;
    Ok(())
}

/// The key that signs manifests (`keys/manifest.pk8`, mode 0600), made if it is not there.
///
/// # Errors
/// The file cannot be read or written or is no key.
pub fn manifest(layout: &Layout) -> Result<Ed25519KeyPair, KeyError> {
    let path = layout.keys().join("manifest.pk8");
    if !path.exists() {
        let made = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
            .map_err(|_| KeyError::Manifest("make"))?;
        files::write_mode(&path, made.as_ref(), 0o600)?;
    }
    Ed25519KeyPair::from_pkcs8(&files::read(&path)?).map_err(|_| KeyError::Manifest("read"))
}
