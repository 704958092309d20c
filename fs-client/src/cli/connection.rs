//! The arguments by which every verb finds its cluster.

use std::{path::PathBuf, time::Duration};

use cairn_daemon::io_error::explain;
use cairn_proto::handshake::Token;
use clap::Args;

use super::failure::Failure;
use crate::config::ClientConfig;

/// Where the master is and how to be let in.
#[derive(Args, Clone, Debug)]
pub struct Connection {
    /// Address of the master, HOST:PORT
    #[arg(long, global = true, env = "CAIRN_MASTER", default_value = "127.0.0.1:9000")]
    pub master: String,

    /// File with the token that the servers were given
    #[arg(long, global = true, env = "CAIRN_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,

    /// How many seconds an operation may wait for a cluster that does not answer
    #[arg(
        long,
        global = true,
        env = "CAIRN_DEADLINE",
        value_name = "SECONDS",
        default_value_t = 30
    )]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub deadline: u64,
}

impl Connection {
    /// The library's configuration; `name` is how `cairn status` shows this client.
    ///
    /// # Errors
    /// When the token file cannot be read or holds no token.
    pub fn config(&self, name: &str) -> Result<ClientConfig, Failure> {
        let mut config = ClientConfig::new(&self.master);
        config.name = name.to_owned();
        config.deadline = Duration::from_secs(self.deadline);
        config.token = self.token()?;
        Ok(config)
    }

    fn token(&self) -> Result<Option<Token>, Failure> {
        let Some(path) = &self.token_file else { return Ok(None) };
        let text = std::fs::read_to_string(path).map_err(|e| {
            Failure::new(format!("cannot read the token file {}: {}", path.display(), explain(&e)))
        })?;
        Token::parse(&text).map(Some).map_err(|e| {
            let path = path.display();
            let copy = "copy the file that the servers use";
            Failure::new(format!("cannot use the token file {path}: {e}: {copy}"))
        })
    }
}
