//! Setting up channels and greeting the peer. Everything that can go wrong here has a sentence.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use cairn_proto::{
    Node,
    handshake::{FEATURES, Greeting, VERSION},
    limits::{CHUNK_SIZE_MAX, CHUNK_SIZE_MIN, MESSAGE_MAX},
    pb::{
        self, master_service_client::MasterServiceClient,
        storage_service_client::StorageServiceClient,
    },
    status::{innermost, sentence},
    transport,
};
use tonic::{Code, Status, service::interceptor::InterceptedService, transport::Channel};
use uuid::Uuid;

use super::dial::Dial;
use crate::config::ClientConfig;

/// Why no session with the master could be had.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The address makes no sense.
    #[error("{address:?} is no address of a master: give HOST:PORT, for example 127.0.0.1:9000")]
    Address {
        /// What was given.
        address: String,
    },
    /// Nobody answers there.
    #[error("no master answers at {address} ({why}): start it, or give its address with --master")]
    Unreachable {
        /// Where.
        address: String,
        /// What the system says.
        why: String,
    },
    /// Somebody answers who does not speak our protocol.
    #[error("{address} is no Cairn master ({why}): check the address given with --master")]
    NotCairn {
        /// Where.
        address: String,
        /// What was wrong with the answer.
        why: String,
    },
    /// The master wants another token, version or file system; it says which.
    #[error("the master at {address} refuses this client: {why}")]
    Refused {
        /// Where.
        address: String,
        /// The master's sentence.
        why: String,
    },
}

/// The master's client with our greeting on every call.
pub(crate) type MasterClient = MasterServiceClient<InterceptedService<Channel, Greeting>>;
/// A connection to a node with our greeting on every call.
pub(crate) type NodeWire = InterceptedService<Channel, Greeting>;
/// A node's client with our greeting on every call.
pub(crate) type StorageClient = StorageServiceClient<NodeWire>;

pub(crate) fn master_client(channel: Channel, greeting: Greeting) -> MasterClient {
    MasterServiceClient::with_interceptor(channel, greeting)
        .max_decoding_message_size(MESSAGE_MAX)
        .max_encoding_message_size(MESSAGE_MAX)
}

pub(crate) fn storage_client(channel: Channel, greeting: Greeting) -> StorageClient {
    StorageServiceClient::with_interceptor(channel, greeting)
        .max_decoding_message_size(MESSAGE_MAX)
        .max_encoding_message_size(MESSAGE_MAX)
}

/// Looking the name of a node up and trying all its addresses takes at most so long.
const DIAL: Duration = Duration::from_secs(10);

/// A channel to a node that connects at its first call and again after it was lost.
pub(crate) struct Lazy {
    pub(crate) channel: Channel,
    /// Whether the last connection was a local one: the node runs on this machine.
    pub(crate) near: Arc<AtomicBool>,
}

/// A channel to `node`, each of whose addresses is tried for at most `timeout`. Needs a runtime.
///
/// # Errors
/// A sentence, when its address is not `host:port`.
pub(crate) fn lazy(node: &Node, timeout: Duration) -> Result<Lazy, String> {
    let whole = timeout.max(DIAL);
    let endpoint = transport::endpoint(&node.address(), whole).map_err(|e| innermost(&e))?;
    let near = Arc::new(AtomicBool::new(false));
    let dial = Dial::new(node, timeout, near.clone());
    Ok(Lazy { channel: endpoint.connect_with_connector_lazy(dial), near })
}

/// Connects to the master and asks which file system it serves.
///
/// # Errors
/// A sentence that says what to look at.
pub(crate) async fn greet_master(
    config: &ClientConfig,
) -> Result<(pb::HelloResponse, Uuid, Channel), ConnectError> {
    let address = || config.master.clone();
    let not_cairn = |why: String| ConnectError::NotCairn { address: address(), why };
    let channel = dial(config).await?;
    let mut client = master_client(channel.clone(), Greeting::new(None, config.token.as_ref()));
    let request = pb::HelloRequest { version: VERSION, features: FEATURES, fs_uuid: "".into() };
    let hello = match tokio::time::timeout(config.connect_timeout, client.hello(request)).await {
        Ok(Ok(hello)) => hello.into_inner(),
        // We were connected, so this is not the network's word.
        Ok(Err(status)) if std::error::Error::source(&status).is_some() => {
            return Err(not_cairn("it breaks the connection off instead of answering".to_owned()));
        }
        Ok(Err(status)) if status.code() == Code::Unimplemented => {
            return Err(not_cairn("it does not know a master's calls; is it a node?".to_owned()));
        }
        Ok(Err(status)) => return Err(refusal(config, &status)),
        Err(_) => {
            let why = format!("no answer within {:?}", config.connect_timeout);
            return Err(ConnectError::Unreachable { address: address(), why });
        }
    };
    if hello.version != VERSION {
        let why = format!(
            "it speaks protocol version {}, this client version {VERSION}: use the same release",
            hello.version
        );
        return Err(ConnectError::Refused { address: address(), why });
    }
    if !(CHUNK_SIZE_MIN..=CHUNK_SIZE_MAX).contains(&hello.chunk_size) {
        return Err(not_cairn(format!("it names a chunk size of {}", hello.chunk_size)));
    }
    match Uuid::parse_str(&hello.fs_uuid) {
        Ok(fs) => Ok((hello, fs, channel)),
        Err(_) => Err(not_cairn(format!("it names the file system {:?}", hello.fs_uuid))),
    }
}

/// A fresh connection to the master.
///
/// # Errors
/// When the address makes no sense or nobody listens there.
pub(crate) async fn dial(config: &ClientConfig) -> Result<Channel, ConnectError> {
    let address = || config.master.clone();
    let endpoint = transport::endpoint(&config.master, config.connect_timeout)
        .ok()
        .filter(|e| e.uri().port().is_some())
        .ok_or_else(|| ConnectError::Address { address: address() })?;
    endpoint
        .connect()
        .await
        .map_err(|e| ConnectError::Unreachable { address: address(), why: innermost(&e) })
}

/// What `status` in answer to the first call on a connection says about the peer.
pub(crate) fn refusal(config: &ClientConfig, status: &Status) -> ConnectError {
    let (address, why) = (config.master.clone(), sentence(status));
    if broke(status) {
        return ConnectError::Unreachable { address, why };
    }
    match status.code() {
        Code::Unauthenticated | Code::FailedPrecondition | Code::PermissionDenied => {
            ConnectError::Refused { address, why }
        }
        Code::Unavailable
        | Code::DeadlineExceeded
        | Code::Cancelled
        | Code::ResourceExhausted
        | Code::Aborted => ConnectError::Unreachable { address, why },
        Code::Ok
        | Code::Unknown
        | Code::Internal
        | Code::Unimplemented
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::OutOfRange
        | Code::DataLoss => ConnectError::NotCairn { address, why },
    }
}

/// Whether the connection was lost rather than the call refused.
fn broke(status: &Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.is::<std::io::Error>() {
            return true;
        }
        cause = error.source();
    }
    false
}
