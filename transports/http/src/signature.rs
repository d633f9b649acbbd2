//! Signatures as Standard Webhooks 1.0 describes them, scheme `v1`: HMAC-SHA256.

use crate::config::misconfigured;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pillarbox_core::Error;
use ring::hmac;

/// A shared secret.
#[derive(Clone)]
pub(crate) struct Secret(hmac::Key);

const PREFIX: &str = "whsec_";

impl Secret {
    /// `whsec_` and 24 to 64 bytes in base64.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let wrong = |what: &str| {
            misconfigured(format!(
                "`transport.secret` {what}; it is `whsec_` and 24 to 64 bytes in base64, with `+` written as `%2B` in a URL"
            ))
        };
        let encoded = text.strip_prefix(PREFIX).ok_or_else(|| wrong("does not begin with `whsec_`"))?;
        let bytes = STANDARD.decode(encoded).map_err(|_| wrong("is no base64"))?;
        if !(24..=64).contains(&bytes.len()) {
            return Err(wrong(&format!("has {} bytes", bytes.len())));
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }

    fn sign(&self, id: &str, seconds: u64, payload: &[u8]) -> String {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(format!("{id}.{seconds}.").as_bytes());
        context.update(payload);
        format!("v1,{}", STANDARD.encode(context.sign()))
    }
}

/// The value of `webhook-signature`: a signature for each secret.
pub(crate) fn sign(secrets: &[Secret], id: &str, seconds: u64, payload: &[u8]) -> String {
    let signatures: Vec<_> = secrets.iter().map(|secret| secret.sign(id, seconds, payload)).collect();
    signatures.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's own libraries.
    #[test]
    fn the_public_example() {
        let secret = Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let (id, seconds, payload) =
            ("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        let expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert_eq!(sign(std::slice::from_ref(&secret), id, seconds, payload), expected);
        assert_eq!(sign(&[secret.clone(), secret], id, seconds, payload), format!("{expected} {expected}"));
    }

    #[test]
    fn secrets_are_checked() {
        let encoded = |bytes: usize| format!("whsec_{}", STANDARD.encode(vec![7; bytes]));
        assert!(Secret::parse(&encoded(24)).is_ok() && Secret::parse(&encoded(64)).is_ok());
        for wrong in ["MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_a b", &encoded(23), &encoded(65)] {
            assert!(Secret::parse(wrong).is_err(), "{wrong}");
        }
    }
}
