//! Which node takes a pod, and of those that do not, why.
//!
//! Upstream: `schedulePod`, `framework/types.go`, FitError.

use crate::{
    filter::{FILTERS, Refused},
    nomination,
    pod::Request,
    score::scores,
    volumes::{Claims, Move},
};
use api::{
    Object,
    core::v1::{Node, Pod},
};
use std::{collections::BTreeMap, fmt};
use world::{Typed, World};

/// Every node, with why it is ruled out.
pub(crate) struct Misfit {
    pub(crate) nodes: Vec<(Typed<Node>, Refused)>,
    /// What stands in the way at every node alike.
    everywhere: Option<String>,
}

impl Misfit {
    /// The same reason at every node, whoever is there.
    pub(crate) fn everywhere(world: &World, why: &str) -> Misfit {
        let nodes = world.all::<Node>().map(|node| (node, Refused::for_good(why)));
        Misfit { nodes: nodes.collect(), everywhere: Some(why.to_owned()) }
    }

    pub(crate) fn new(nodes: Vec<(Typed<Node>, Refused)>) -> Misfit {
        Misfit { nodes, everywhere: None }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }
}

/// Per reason with the number of nodes.
impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("no nodes available to schedule pods");
        }
        if let Some(why) = &self.everywhere {
            return write!(f, "0/{} nodes are available: {why}.", self.nodes.len());
        }
        let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
        for why in self.nodes.iter().flat_map(|(_, refused)| &refused.whys) {
            *reasons.entry(why).or_default() += 1;
        }
        let mut list: Vec<String> = reasons.iter().map(|(why, n)| format!("{n} {why}")).collect();
        list.sort();
        write!(f, "0/{} nodes are available: {}.", self.nodes.len(), list.join(", "))
    }
}

/// The best node that passes every filter, and what has to be done to the pod's claims for it. The
/// node that was kept for the pod is the best one, as long as it passes.
pub(crate) fn choose(
    world: &World,
    pod: &Pod,
    claims: &Claims,
) -> Result<(Typed<Node>, Vec<Move>), Misfit> {
    let request = Request::new(world, pod);
    let mut misfit = Misfit::new(Vec::new());
    let mut fits: Vec<(Typed<Node>, Vec<Move>)> = Vec::new();
    for node in world.all::<Node>() {
        match judge(&request, claims, &node) {
            Err(refused) => misfit.nodes.push((node, refused)),
            Ok(moves) if nomination(pod) == Some(node.name()) => return Ok((node, moves)),
            Ok(moves) => fits.push((node, moves)),
        }
    }
    if fits.len() > 1 {
        let places: Vec<_> = fits.iter().map(|(node, _)| request.at(node)).collect();
        let scores = scores(&places);
        // Of equals the first by name: the same world gives the same plan.
        let best = (0..fits.len()).rev().max_by_key(|it| scores[*it]);
        fits.swap(0, best.unwrap_or(0));
    }
    fits.into_iter().next().ok_or(misfit)
}

/// Whether the node takes the pod, and what has to be done to its claims then.
pub(crate) fn judge(
    request: &Request<'_>,
    claims: &Claims,
    node: &Node,
) -> Result<Vec<Move>, Refused> {
    let place = request.at(node);
    FILTERS.iter().try_for_each(|filter| filter(&place))?;
    claims.moves_at(request.world, node)
}
