//! Between producers and agents.

use crate::cluster::Cluster;
use crate::world::{Fate, Node, Way, World, pause};
use futures::future::{BoxFuture, FutureExt};
use std::sync::Arc;
use streamhouse_client::Transport;
use streamhouse_proto::v1::{ProduceRequest, ProduceResponse};
use tonic::Status;

/// A producer's way to the agents.
pub(crate) struct Network {
    pub(crate) world: Arc<World>,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) node: Node,
}

impl Transport for Network {
    fn produce(
        &self,
        address: &str,
        request: ProduceRequest,
    ) -> BoxFuture<'static, Result<ProduceResponse, Status>> {
        let (world, cluster, address) =
            (Arc::clone(&self.world), Arc::clone(&self.cluster), address.to_owned());
        let fate = self.world.fate(self.node, Way::Network);
        async move {
            let (before, after, known) = match fate {
                Fate::Refused { after } => {
                    pause(after).await;
                    return Err(Status::unavailable("the connection broke"));
                }
                Fate::Happens { before, after, known } => (before, after, known),
            };
            // What was sent arrives, also when the producer does not wait any more.
            let request = tokio::spawn(async move {
                pause(before).await;
                cluster.serve(&address, request).await
            });
            let answer = request.await.unwrap_or_else(|_| Err(Status::unavailable("the connection broke")));
            pause(after).await;
            world.tell(format_args!(
                "an answer arrives: {}",
                if known && answer.is_ok() { "whole" } else { "broken" }
            ));
            if known { answer } else { Err(Status::unavailable("the connection broke")) }
        }
        .boxed()
    }
}
