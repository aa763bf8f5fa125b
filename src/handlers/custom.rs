//! The handlers that a program brings along, beside those that ship with Dispatchbox.

use std::fmt;
use std::sync::Arc;

use crate::domain::event::Event;
use crate::handlers::kind::{Build, Deliver, Settings};
use crate::handlers::{Handler, HandlerError, Run};

/// The handlers that a program brings along; empty in `dispatchbox` itself.
///
/// Mistakes in it (a pattern that cannot match, a name given twice) are reported when the routes
/// are built at the start, with those of the configuration.
#[derive(Clone, Default)]
pub struct Handlers {
    on: Vec<(String, Arc<dyn Handler>)>,
    registered: Vec<(String, Arc<dyn Handler>)>,
}

impl Handlers {
    /// Adds a route that stands before all configured ones: events whose type matches `pattern`
    /// (exact, `prefix.*` or `*`) go to `handler`, with the timeout and the retry policy of the
    /// configuration.
    #[must_use]
    pub fn on(mut self, pattern: impl Into<String>, handler: impl Handler + 'static) -> Handlers {
        self.on.push((pattern.into(), Arc::new(handler)));
        self
    }

    /// Lets configured routes name `handler`: `handler = "name"` in the file, `--route '*=name'` on
    /// the command line.
    #[must_use]
    pub fn register(
        mut self,
        name: impl Into<String>,
        handler: impl Handler + 'static,
    ) -> Handlers {
        self.registered.push((name.into(), Arc::new(handler)));
        self
    }

    /// Registers a handler of the program itself. One that is registered under this name already
    /// keeps it.
    #[must_use]
    pub(crate) fn register_own(self, name: &str, handler: impl Handler + 'static) -> Handlers {
        if self.knows(name) {
            return self;
        }
        self.register(name, handler)
    }

    /// Says whether there is a route made with [`Handlers::on`].
    pub fn has_routes(&self) -> bool {
        !self.on.is_empty()
    }

    /// Lists the patterns of the routes made with [`Handlers::on`], in their order.
    pub fn patterns(&self) -> impl Iterator<Item = &str> {
        self.on.iter().map(|(pattern, _)| pattern.as_str())
    }

    /// Lists the names that configured routes may use, in the order in which they were registered.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.registered.iter().map(|(name, _)| name.as_str())
    }

    /// Says whether configured routes may name this handler.
    pub fn knows(&self, name: &str) -> bool {
        self.registered(name).is_some()
    }

    /// The routes made with [`Handlers::on`], in their order.
    pub(super) fn routes(&self) -> impl Iterator<Item = (&str, Box<dyn Deliver>)> {
        self.on
            .iter()
            .map(|(pattern, handler)| (pattern.as_str(), library(handler)))
    }

    /// The settings of the handler that is registered under a name.
    pub(super) fn registered(&self, name: &str) -> Option<Registered<'_>> {
        let found = self.registered.iter().find(|(known, _)| known == name);
        found.map(|(name, handler)| Registered { name, handler })
    }
}

impl fmt::Debug for Handlers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handlers")
            .field("on", &self.patterns().collect::<Vec<_>>())
            .field("registered", &self.names().collect::<Vec<_>>())
            .finish()
    }
}

/// A registered handler as the settings of a route name it: its name is all that a route knows of
/// it.
pub(super) struct Registered<'a> {
    name: &'a str,
    handler: &'a Arc<dyn Handler>,
}

impl Settings for Registered<'_> {
    fn build(&self, _: Build<'_>) -> Result<Box<dyn Deliver>, String> {
        Ok(library(self.handler))
    }

    fn shown(&self) -> String {
        self.name.to_owned()
    }
}

fn library(handler: &Arc<dyn Handler>) -> Box<dyn Deliver> {
    Box::new(Library(Arc::clone(handler)))
}

struct Library(Arc<dyn Handler>);

impl Deliver for Library {
    fn deliver(&self, event: &Event, _: &Run<'_>) -> Result<(), HandlerError> {
        self.0.handle(event)
    }

    fn is_library(&self) -> bool {
        true
    }
}
