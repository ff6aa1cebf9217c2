//! The services behind the one port.

use super::{Admitting, MetadataService, Service as AgentService};
use futures::future::{BoxFuture, FutureExt, ready};
use std::convert::Infallible as Never;
use std::task::{Context, Poll};
use streamhouse_proto::v1::agent_server::{self, AgentServer};
use streamhouse_proto::v1::metadata_server::{self, MetadataServer};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Service, http};

/// Each service with an admission of its own, so that neither takes the other's room.
#[derive(Clone)]
pub(super) struct Services {
    pub(super) agent: Admitting<AgentServer<AgentService>>,
    pub(super) metadata: Admitting<MetadataServer<MetadataService>>,
}

impl Service<http::Request<Body>> for Services {
    type Response = http::Response<Body>;
    type Error = Never;
    type Future = BoxFuture<'static, Result<Self::Response, Never>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Never>> {
        // Both always are.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let service = request.uri().path().strip_prefix('/').and_then(|path| path.split_once('/'));
        match service {
            Some((agent_server::SERVICE_NAME, _)) => self.agent.call(request),
            Some((metadata_server::SERVICE_NAME, _)) => self.metadata.call(request),
            _ => ready(Ok(unknown().into_http())).boxed(),
        }
    }
}

fn unknown() -> Status {
    Status::unimplemented("this agent has no such service; see that client and agent are of one version")
}
