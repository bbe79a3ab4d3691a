//! What the user asks for.

use bytes::Bytes;

use super::super::goodbye::Goodbye;
use super::super::piggyback::Rumor;
use super::super::pull::Purpose;
use super::super::roles::RoleSet;
use super::super::seal::Sealing;
use super::super::timer::Timer;
use super::super::{Command, CommandError, Phase, Protocol};
use crate::config::Config;
use crate::error::{MetaError, RoleError, ScopeError};
use crate::keyring::KeyringError;
use crate::node::{Generation, MAX_META_BYTES, ScopeName};
use crate::role::Role;
use crate::wire::ScopeId;
use crate::wire::frame::{Membership, Object};

impl Protocol {
    pub(in crate::proto) fn obey(&mut self, command: Command) -> Result<(), CommandError> {
        if self.phase == Phase::Stopped || self.goodbye.is_some() {
            return Err(CommandError::Stopped);
        }
        match command {
            Command::AddRoles { scope, roles } => self.add_roles(&scope, roles)?,
            Command::RemoveRoles { scope, roles } => self.remove_roles(&scope, roles),
            Command::JoinScope(scope) => self.join_scope(&scope)?,
            Command::LeaveScope(scope) => self.leave_scope(&scope)?,
            Command::SetMeta(meta) => self.set_meta(&meta)?,
            Command::Contact { addrs, token } => self.contact(addrs, token),
            Command::Leave => self.leave(),
            Command::InstallKey(key) => self.sealing()?.install(key)?,
            Command::UseKey(id) => {
                if self.sealing()?.use_key(id)? {
                    self.give_sign_to_all();
                }
            }
            Command::RemoveKey(id) => self.sealing()?.remove(id)?,
            Command::Reconfigure(config) => self.reconfigure(*config)?,
            Command::Deliver { token, scope, generation } => {
                let id = ScopeId::of(&scope);
                let ask_at = self.now + self.gather(id);
                let wanted = (id, generation);
                let timeout = self.config.pull_timeout;
                if !self.receipts.wait((self.now, ask_at), timeout, token, wanted) {
                    return Err(CommandError::Busy);
                }
            }
        }
        Ok(())
    }

    fn sealing(&mut self) -> Result<&mut Sealing, KeyringError> {
        self.sealing.as_deref_mut().ok_or(KeyringError::NotEncrypted)
    }

    fn add_roles(&mut self, name: &ScopeName, roles: Vec<Role>) -> Result<(), CommandError> {
        let scope = ScopeId::of(name);
        self.check_roles(scope, &roles)?;
        if self.roles.table(scope).is_none() {
            if roles.is_empty() {
                return Ok(());
            }
            self.enter_scope(scope, name).map_err(|error| CommandError::Role(error.into()))?;
            self.change_roles(scope, roles, true);
            self.publish_profile();
        } else {
            self.change_roles(scope, roles, true);
        }
        Ok(())
    }

    fn remove_roles(&mut self, name: &ScopeName, roles: Vec<Role>) {
        let scope = ScopeId::of(name);
        if self.roles.table(scope).is_some() {
            self.change_roles(scope, roles, false);
        }
    }

    /// Whether this node may hold these roles in the scope, with those it has.
    fn check_roles(&self, scope: ScopeId, roles: &[Role]) -> Result<(), RoleError> {
        for role in roles {
            role.check_len()?;
        }
        let own = self.roles.set(scope, self.local);
        let mut new: Vec<&Role> =
            roles.iter().filter(|role| !own.is_some_and(|own| own.holds(role))).collect();
        new.sort_unstable();
        new.dedup();
        if new.is_empty() {
            return Ok(());
        }
        let max = self.config.max_role_bytes;
        let longest = new.iter().map(|role| role.as_bytes().len()).max().unwrap_or(0);
        if longest > max {
            return Err(RoleError::TooLarge { len: longest, max });
        }
        let (count, max) =
            (own.map_or(0, RoleSet::len) + new.len(), self.config.max_roles_per_node);
        if count > max {
            return Err(RoleError::TooMany { count, max });
        }
        let added: usize = new.iter().map(|role| role.as_bytes().len()).sum();
        let (len, max) = (own.map_or(0, RoleSet::bytes) + added, self.config.max_node_role_bytes);
        if len > max {
            return Err(RoleError::TooManyBytes { len, max });
        }
        self.check_total(&new)
    }

    fn change_roles(&mut self, scope: ScopeId, roles: Vec<Role>, held: bool) {
        let before = self.roles.own_generation(scope);
        if let Some(difference) = self.roles.change_own(scope, roles.into_iter(), held) {
            self.make_room_for_roles();
            self.news(Rumor::Roles(self.local, scope), before);
            self.show(self.local, scope, difference);
            if self.members.is_lone() {
                // Nobody has seen this version of the profile: it may still say more.
                let scopes = self.own_memberships();
                self.members.update_local(|member| member.change_run(|run| run.scopes = scopes));
            }
        }
    }

    fn join_scope(&mut self, name: &ScopeName) -> Result<(), ScopeError> {
        let scope = ScopeId::of(name);
        if self.roles.table(scope).is_some() {
            return Err(ScopeError::AlreadyJoined);
        }
        self.enter_scope(scope, name)?;
        self.publish_profile();
        Ok(())
    }

    /// Enters a scope: its members are listed, and their roles pulled from one of them.
    fn enter_scope(&mut self, scope: ScopeId, name: &ScopeName) -> Result<(), ScopeError> {
        let max = self.config.max_scopes_per_node;
        if self.roles.count() >= max {
            return Err(ScopeError::TooMany { max });
        }
        self.roles.join(scope, name.clone());
        for id in self.members.peers().to_vec() {
            if self.members.live(id).is_some_and(|member| member.is_in(scope)) {
                self.roles.list(scope, id);
            }
        }
        Ok(())
    }

    /// Makes a new version of this node's profile and spreads it. A scope entered since the last
    /// version is pulled, after a peer in it has been told that this node is in it too.
    pub(super) fn publish_profile(&mut self) {
        let scopes = self.own_memberships();
        let before = self.members.local().scopes.clone();
        self.members.update_local(|member| {
            member.change_run(|run| {
                run.version = run.version.saturating_add(1);
                run.scopes.clone_from(&scopes);
            });
        });
        self.news(Rumor::Profile(self.local), Generation::ZERO);
        if self.pulls.is_for(|purpose| purpose == Purpose::Join) {
            // The first pull goes on to the scopes when the members are here.
            return;
        }
        for entered in scopes.iter().filter(|now| before.iter().all(|it| it.scope != now.scope)) {
            self.pull_scope(entered.scope, None);
        }
    }

    fn own_memberships(&self) -> Box<[Membership]> {
        let memberships = self
            .roles
            .scopes()
            .map(|(scope, _)| Membership { scope, generation: self.roles.own_generation(scope) });
        memberships.collect()
    }

    fn leave_scope(&mut self, name: &ScopeName) -> Result<(), ScopeError> {
        let scope = ScopeId::of(name);
        let table = self.roles.leave(scope).ok_or(ScopeError::NotJoined)?;
        self.piggyback.drop_scope(scope);
        self.told_lately.remove(&scope);
        self.fetches.cancel(|object| !matches!(object, Object::Roles(_, of) if of == scope));
        for id in table.peers().iter().chain([&self.local]) {
            let Some(member) = self.members.live(*id).filter(|it| it.announced) else { continue };
            let node = member.node.clone();
            let held = table.set(*id).into_iter().flat_map(RoleSet::held);
            for role in held.cloned() {
                let (scope, node) = (table.name.clone(), node.clone());
                self.events.push_back(crate::Event::RoleRemoved { scope, node, role });
            }
        }
        // Who waited for roles of this scope need not any more.
        for id in self.announcing.keys().collect::<Vec<_>>() {
            self.try_announce(id);
        }
        self.publish_profile();
        Ok(())
    }

    fn set_meta(&mut self, meta: &Bytes) -> Result<(), MetaError> {
        let len = meta.len();
        if len > MAX_META_BYTES {
            return Err(MetaError::TooLarge { len, max: MAX_META_BYTES });
        }
        if self.local().meta() == meta {
            return Ok(());
        }
        self.members.update_local(|member| {
            let node = &member.node;
            let (name, id, addr) = (node.node_name().clone(), node.id(), node.addr());
            let node = crate::Node::new(name, id, addr, meta.clone());
            member.change_run(|run| run.node = node);
        });
        let node = self.local().clone();
        self.events.push_back(crate::Event::NodeUpdated { node });
        self.publish_profile();
        Ok(())
    }

    fn leave(&mut self) {
        self.goodbye = Some(Goodbye::new(self.now + self.config.leave_timeout));
        // What is pending goes first, and does not wait for more.
        self.last_launch = None;
        self.launch_news();
    }

    fn reconfigure(&mut self, config: Config) -> Result<(), CommandError> {
        config.validate()?;
        self.config = config;
        self.apply_limits();
        self.drop_oversized();
        // Shorter intervals hold from now on, not from the next round on.
        let probe = self.now + self.health.scale(self.config.probe_interval);
        self.timers.set_earlier(Timer::Probe, probe);
        self.timers.set_earlier(Timer::Pull, self.now + self.config.pull_interval);
        self.timers.set_earlier(Timer::Reconnect, self.now + self.config.reconnect_interval);
        Ok(())
    }
}
