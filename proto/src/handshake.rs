//! Who talks to whom: protocol version, features, file system, shared token.
//!
//! Every call of ours carries three headers; [`Greeting`] writes them, [`Doorkeeper`] checks them.
//! A stranger with the plain eight calls may leave out version and file system, never the token.

use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataMap, MetadataValue},
    service::Interceptor,
};
use uuid::Uuid;

use crate::Malformed;

/// Version of the protocol that this build speaks.
pub const VERSION: u32 = 1;
/// Feature bits that this build knows.
pub const FEATURES: u64 = 0;

const VERSION_KEY: &str = "cairn-version";
const FS_KEY: &str = "cairn-fs";
const TOKEN_KEY: &str = "authorization";

/// A shared secret: what the token file holds, without surrounding white space.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// # Errors
    /// When it is shorter than 16 bytes, or has bytes that no header may carry.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let text = text.trim();
        if text.len() < 16 {
            return Err(Malformed::new("token", "has fewer than 16 characters"));
        }
        if !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Malformed::new("token", "may only have visible ASCII characters"));
        }
        Ok(Self(text.to_owned()))
    }

    /// Compares in constant time.
    fn matches(&self, other: &str) -> bool {
        self.0.len() == other.len()
            && self.0.bytes().zip(other.bytes()).fold(0, |acc, (a, b)| acc | (a ^ b)) == 0
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
}

/// The caller's side: an interceptor that adds the headers.
#[derive(Clone, Debug, Default)]
pub struct Greeting {
    fs: Option<MetadataValue<Ascii>>,
    token: Option<MetadataValue<Ascii>>,
}

impl Greeting {
    /// `fs` is absent only while the caller does not know it yet.
    pub fn new(fs: Option<Uuid>, token: Option<&Token>) -> Self {
        let ascii = |text: String| text.parse().expect("visible ASCII is a valid header value");
        Self {
            fs: fs.map(|u| ascii(u.to_string())),
            token: token.map(|t| ascii(format!("Bearer {}", t.0))),
        }
    }
}

impl Interceptor for Greeting {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let headers = request.metadata_mut();
        headers.insert(VERSION_KEY, VERSION.into());
        if let Some(fs) = &self.fs {
            headers.insert(FS_KEY, fs.clone());
        }
        if let Some(token) = &self.token {
            headers.insert(TOKEN_KEY, token.clone());
        }
        Ok(request)
    }
}

/// The server's side: an interceptor that refuses strangers with a sentence.
#[derive(Clone, Debug)]
pub struct Doorkeeper {
    fs: Uuid,
    token: Option<Token>,
}

impl Doorkeeper {
    /// Lets in who belongs to the file system `fs` and, when there is one, knows the token.
    pub fn new(fs: Uuid, token: Option<Token>) -> Self {
        Self { fs, token }
    }

    fn check(&self, headers: &MetadataMap) -> Result<(), Status> {
        let text = |key| headers.get(key).map(|v| v.to_str().unwrap_or_default());
        if let Some(token) = &self.token {
            let given = text(TOKEN_KEY).and_then(|v| v.strip_prefix("Bearer "));
            let wrong = match given {
                None => "this file system wants a token",
                Some(given) if token.matches(given) => "",
                Some(_) => "this file system has another token",
            };
            if !wrong.is_empty() {
                return Err(Status::unauthenticated(format!(
                    "{wrong}: give a copy of the servers' file with --token-file"
                )));
            }
        }
        if let Some(version) = text(VERSION_KEY)
            && version.parse() != Ok(VERSION)
        {
            return Err(Status::failed_precondition(format!(
                "the caller speaks protocol version {version}, this server version {VERSION}: \
                 use the same release on both sides"
            )));
        }
        if let Some(fs) = text(FS_KEY)
            && Uuid::parse_str(fs) != Ok(self.fs)
        {
            return Err(Status::failed_precondition(format!(
                "the caller belongs to file system {fs}, this server to {}: \
                 check the address of the master",
                self.fs
            )));
        }
        Ok(())
    }
}

impl Interceptor for Doorkeeper {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        self.check(request.metadata())?;
        Ok(request)
    }
}

/// For the streams, which only our own programs open: version and file system must have been given
/// (the [`Doorkeeper`] has compared them already).
///
/// # Errors
/// FAILED_PRECONDITION when a header is missing.
pub fn require(headers: &MetadataMap) -> Result<(), Status> {
    for key in [VERSION_KEY, FS_KEY] {
        if headers.get(key).is_none() {
            return Err(Status::failed_precondition(format!(
                "this call needs the header {key}: it is for Cairn's own programs"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meet(greeting: &Greeting, keeper: &Doorkeeper) -> Result<(), Status> {
        let request = greeting.clone().call(Request::new(()))?;
        keeper.clone().call(request).map(|_| ())
    }

    #[test]
    fn strangers_are_told_why() {
        let (ours, theirs) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let token = Token::parse(" 0123456789abcdef\n").unwrap();
        let other = Token::parse("0123456789abcdeX").unwrap();
        let open = Doorkeeper::new(ours, None);
        let closed = Doorkeeper::new(ours, Some(token.clone()));
        assert!(meet(&Greeting::new(Some(ours), None), &open).is_ok());
        assert!(meet(&Greeting::new(None, None), &open).is_ok());
        let e = meet(&Greeting::new(Some(theirs), None), &open).unwrap_err();
        assert!(e.message().contains("belongs to file system"), "{e}");
        assert!(meet(&Greeting::new(Some(ours), Some(&token)), &closed).is_ok());
        for wrong in [None, Some(&other)] {
            let e = meet(&Greeting::new(Some(ours), wrong), &closed).unwrap_err();
            assert_eq!(e.code(), tonic::Code::Unauthenticated);
        }
        let mut old = Request::new(());
        old.metadata_mut().insert(VERSION_KEY, 99.into());
        assert!(open.clone().call(old).unwrap_err().message().contains("version 99"));
    }

    #[test]
    fn weak_tokens_are_refused() {
        assert!(Token::parse("short").is_err());
        assert!(Token::parse("0123456789 abcdef").is_err());
    }
}
