//! Another configuration for pipelines that run: those it leaves alone go on untouched.

use std::sync::Arc;

use super::{App, AppError, Route};
use crate::config::Config;

/// What becomes of the pipelines with a new configuration. Everything that can go wrong has gone right already: the new
/// ones are built, and none of the old ones was touched.
#[derive(Debug)]
pub(super) struct Plan {
    /// In the order of the new configuration.
    routes: Vec<Planned>,
}

#[derive(Debug)]
enum Planned {
    /// Goes on as it is.
    Kept(String, String),
    /// Starts once what it replaces has ended.
    New(Box<Route>),
}

impl Plan {
    /// Names of the pipelines that start.
    pub(super) fn starting(&self) -> usize {
        self.routes.iter().filter(|planned| matches!(planned, Planned::New(_))).count()
    }
}

impl App {
    /// Looks what a new configuration changes, and builds it.
    ///
    /// # Errors
    /// [`AppError`]; then nothing is changed.
    pub(super) fn plan(&mut self, old: &Config, new: &Config) -> Result<Plan, AppError> {
        let paces = self.common.paces.clone();
        // A collector whose settings are others has a pace of its own again.
        self.common.paces.retain(|output, _| old.feeds_alike(new, output));
        let mut routes = Vec::with_capacity(new.pipelines.len());
        for pipeline in &new.pipelines {
            if old.runs_alike(new, pipeline) {
                routes.push(Planned::Kept(pipeline.input.clone(), pipeline.output.clone()));
                continue;
            }
            match self.route(new, pipeline) {
                Ok(route) => routes.push(Planned::New(Box::new(route))),
                Err(error) => {
                    self.common.paces = paces;
                    self.forget_all_but_ours(new);
                    return Err(error);
                }
            }
        }
        Ok(Plan { routes })
    }

    /// Takes the pipelines that a refused configuration would have added out of what is scraped.
    fn forget_all_but_ours(&self, refused: &Config) {
        for pipeline in &refused.pipelines {
            if !self.has(&pipeline.input, &pipeline.output) {
                self.metrics.pipeline(&pipeline.input, &pipeline.output).forget();
            }
        }
    }

    fn has(&self, input: &str, output: &str) -> bool {
        self.routes.iter().any(|route| route.input_name == input && route.output_name == output)
    }

    /// Tells those that are not in the plan to end; gives their tasks.
    pub(super) fn end_others(&self, plan: &Plan) -> Vec<tokio::task::Id> {
        let kept = |route: &&Route| {
            plan.routes.iter().any(|planned| {
                matches!(planned, Planned::Kept(input, output)
                if *input == route.input_name && *output == route.output_name)
            })
        };
        let ending = self.routes.iter().filter(|route| !kept(route));
        ending.inspect(|route| route.stop.cancel()).filter_map(|route| route.task).collect()
    }

    /// Puts the plan in place of what there is. Those that are not in it must have ended.
    pub(super) fn carry_out(&mut self, plan: Plan, config: &Config) {
        let mut before = std::mem::take(&mut self.routes);
        for planned in plan.routes {
            match planned {
                Planned::Kept(input, output) => {
                    let is_it = |route: &Route| route.input_name == input && route.output_name == output;
                    let kept = before.iter().position(is_it);
                    self.routes.extend(kept.map(|index| before.swap_remove(index)));
                }
                Planned::New(route) => {
                    route.metrics.rest();
                    self.routes.push(*route);
                }
            }
        }
        for gone in before.iter().filter(|gone| !self.has(&gone.input_name, &gone.output_name)) {
            gone.metrics.forget();
        }
        self.show(config);
    }

    /// Reopens the files of all outputs, for logrotate.
    pub async fn reopen(&self) {
        let outputs: Vec<_> = self.routes.iter().map(|route| Arc::clone(&route.output)).collect();
        for output in outputs {
            output.reopen().await;
        }
    }
}
