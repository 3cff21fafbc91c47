//! Which pools there are.
//!
//! One is made when somebody who has logged in asks for it. Whether there is such a database only a
//! server can tell, so one that never had any does not stay when nobody needs it any more.

use super::core::PoolId;
use super::{BorrowError, Pool, Pools};
use hashbrown::HashMap;
use std::sync::Arc;

/// Most (database, user) pools.
const POOLS_MAX: usize = 1000;

/// Names of a database and of a user.
pub(super) type PoolName = (Box<str>, Box<str>);

impl Pools {
    /// The pool of `user` in `database`, made when it is first asked for.
    ///
    /// # Errors
    /// [`BorrowError::TooManyPools`].
    pub fn pool(self: &Arc<Self>, database: &str, user: &str) -> Result<Arc<Pool>, BorrowError> {
        let key = (Box::from(database), Box::from(user));
        if let Some(pool) = self.by_name.read().get(&key) {
            return Ok(Arc::clone(pool));
        }
        let mut by_name = self.by_name.write();
        if let Some(pool) = by_name.get(&key) {
            return Ok(Arc::clone(pool));
        }
        if by_name.len() >= POOLS_MAX {
            self.drop_unused_of(&mut by_name);
        }
        if by_name.len() >= POOLS_MAX {
            return Err(BorrowError::TooManyPools);
        }
        let id = self.core.lock().add_pool();
        let pool = Arc::new(Pool::new(id, database, user, self));
        by_name.insert(key, Arc::clone(&pool));
        Ok(pool)
    }

    pub(super) fn pool_by_id(&self, id: PoolId) -> Option<Arc<Pool>> {
        self.by_name.read().values().find(|pool| pool.id == id).map(Arc::clone)
    }

    /// How often the defaults of a pool were seen to change, if there is one.
    pub(super) fn defaults_changes(&self, database: &str, user: &str) -> u64 {
        let key = (Box::from(database), Box::from(user));
        self.by_name.read().get(&key).map_or(0, |pool| pool.defaults_changes())
    }

    /// Drops the pools that nobody uses and that never had a server: no such database, perhaps.
    pub(super) fn drop_unused(&self) {
        self.drop_unused_of(&mut self.by_name.write());
    }

    fn drop_unused_of(&self, by_name: &mut HashMap<PoolName, Arc<Pool>>) {
        by_name.retain(|_, pool| {
            // Who uses it holds it, and who will has to find it here first. After a failure it is held
            // until the next try may be made.
            let is_held = Arc::strong_count(pool) > 1;
            is_held || pool.secret.has_opened() || !self.core.lock().remove_pool(pool.id)
        });
    }
}
