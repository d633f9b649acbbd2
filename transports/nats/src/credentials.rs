//! What a connection proves itself by.

use crate::config::{Login, NatsConfig, misconfigured};
use async_nats::Auth;
use pillarbox_core::Error;

/// Who connects, ready to answer a server's challenge.
pub(crate) enum Identity {
    Login(Login),
    User { jwt: String, key: Box<nkeys::KeyPair> },
}

impl Identity {
    /// Reads the credentials file, if there is one.
    ///
    /// # Errors
    /// `Misconfigured`, naming the setting and the file, never its content.
    pub(crate) fn read(config: &NatsConfig) -> Result<Self, Error> {
        let Some(path) = &config.credentials else { return Ok(Self::Login(config.login.clone())) };
        let wrong = |reason: &str| {
            misconfigured(format!("`transport.credentials`: the file {} {reason}", path.display()))
        };
        let content =
            std::fs::read_to_string(path).map_err(|cause| wrong("cannot be read").caused_by(cause))?;
        let jwt = block(&content, "NATS USER JWT").ok_or_else(|| wrong("has no `NATS USER JWT`"))?;
        let seed = block(&content, "USER NKEY SEED").ok_or_else(|| wrong("has no `USER NKEY SEED`"))?;
        let key = nkeys::KeyPair::from_seed(seed).map_err(|_| wrong("has a seed that is none"))?;
        Ok(Self::User { jwt: jwt.to_owned(), key: Box::new(key) })
    }

    /// The answer to a server's challenge. `None` only if the key cannot sign.
    pub(crate) fn answer(&self, nonce: &[u8]) -> Option<Auth> {
        let mut auth = Auth::new();
        match self {
            Self::Login(Login::Nobody) => {}
            Self::Login(Login::Password { user, password }) => {
                auth.username = Some(user.clone());
                auth.password = Some(password.clone());
            }
            Self::Login(Login::Token(token)) => auth.token = Some(token.clone()),
            Self::User { jwt, key } => {
                auth.jwt = Some(jwt.clone());
                auth.signature = Some(key.sign(nonce).ok()?);
            }
        }
        Some(auth)
    }
}

/// The line behind `-----BEGIN name-----`.
fn block<'a>(content: &'a str, name: &str) -> Option<&'a str> {
    let begin = format!("BEGIN {name}");
    let mut lines = content.lines().skip_while(|line| !line.contains(&begin)).skip(1).map(str::trim);
    lines.next().filter(|line| !line.is_empty() && !line.starts_with('-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credentials_file_has_two_blocks() {
        let content = "-----BEGIN NATS USER JWT-----\r\nabc.def\r\n------END NATS USER JWT------\r\n\n\
                       -----BEGIN USER NKEY SEED-----\nSUXYZ\n------END USER NKEY SEED------\n";
        assert_eq!(block(content, "NATS USER JWT"), Some("abc.def"));
        assert_eq!(block(content, "USER NKEY SEED"), Some("SUXYZ"));
        assert_eq!(block("-----BEGIN NATS USER JWT-----\n------END", "NATS USER JWT"), None);
        assert_eq!(block("", "NATS USER JWT"), None);
    }
}
