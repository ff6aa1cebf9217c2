//! A real S3 protocol server over HTTP on a loopback port, with objects as files, and faults that can be turned on.

mod faulty;

pub use faulty::Faulty;

use anyhow::{Context, Result};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use streamhouse_tests::s3::{ACCESS_KEY, BUCKET, SECRET_KEY};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A running server. Dropped, it takes no more connections; those that are open live as long as the runtime.
pub struct Server {
    address: SocketAddr,
    faulty: Arc<Faulty>,
    accepting: JoinHandle<()>,
}

impl Server {
    /// Serves [`BUCKET`] with the objects in `dir`, which is made if need be, on a free loopback port. `seed` decides
    /// which requests faults meet.
    ///
    /// # Errors
    ///
    /// When the directory cannot be made, or no port is free.
    pub async fn start(dir: &Path, seed: u64) -> Result<Server> {
        std::fs::create_dir_all(dir.join(BUCKET)).with_context(|| format!("making {}", dir.display()))?;
        let files = s3s_fs::FileSystem::new(dir).map_err(|error| anyhow::anyhow!("{error:?}"))?;
        let mut service = S3ServiceBuilder::new(files);
        service.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let faulty = Arc::new(Faulty::new(service.build(), seed));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let accepting = tokio::spawn(accept(listener, Arc::clone(&faulty)));
        Ok(Server { address, faulty, accepting })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it does to requests.
    pub fn faulty(&self) -> &Faulty {
        &self.faulty
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, faulty: Arc<Faulty>) {
    loop {
        // Out of files or a connection that is gone already: the next may do.
        let Ok((stream, _)) = listener.accept().await else {
            tokio::task::yield_now().await;
            continue;
        };
        tokio::spawn(serve(stream, Arc::clone(&faulty)));
    }
}

async fn serve(stream: TcpStream, faulty: Arc<Faulty>) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let faulty = Arc::clone(&faulty);
        async move { faulty.answer(request.map(s3s::Body::from)).await }
    });
    // A connection that ends with an error is the client's business, or a fault that was asked for.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}
