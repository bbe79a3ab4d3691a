//! The public API on real sockets: starting, stopping, addresses, errors, events, readers. What
//! `ClusterHelper` has too is in `tests/parity.rs`.

#[path = "support/cluster.rs"]
mod support;

use std::net::UdpSocket;
use std::time::Duration;

use rolecall::{
    Cluster, Config, DownReason, Event, JoinError, LeaveError, MetaError, Node, Role, RoleError,
    ScopeError, StartError, role,
};
use support::{
    Heard, Puppet, drain, eventually, joined, next, node, nodes, nodes_with, seed, text, until,
    with_quick_pull, within,
};

/// A loopback port that nobody listens on at this moment.
fn free_port() -> u16 {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A tuning that gives up on seeds quickly.
fn impatient() -> Config {
    Config { join_timeout: Duration::from_millis(200), ..Config::local() }
}

mod stopping {
    use super::*;
    use rolecall::Generation;

    #[tokio::test]
    async fn dropping_the_last_handle_is_a_crash_that_peers_find_out() {
        let [a, b, c] = nodes().await;
        let mut events = a.events();
        let clone = c.clone();
        drop(c);
        assert_eq!(clone.members().len(), 3, "a clone keeps it running");
        drop(clone);
        let reason = loop {
            if let Event::NodeDown { node, reason } = next(&mut events).await {
                assert_eq!(node.name(), "c");
                break reason;
            }
        };
        let DownReason::Failed(evidence) = reason else { panic!("{reason:?}") };
        assert!(evidence.accuser.is_some());
        assert!(!evidence.witnesses.is_empty());
        eventually(|| b.members().len() == 2).await;
    }

    #[tokio::test]
    async fn dropping_the_last_handle_ends_streams_and_frees_the_port() {
        let a = node("a").start().await.unwrap();
        let (addr, events) = (a.local_addr(), a.events());
        let mut watch = a.default_scope().watch("web");
        a.add_role("web").unwrap();
        drop(a);
        assert_eq!(drain(events).await, [r#"+ default a "web""#]);
        while within(watch.next()).await.is_some() {}
        assert_eq!(watch.get().len(), 1, "what was known last");
        eventually(|| UdpSocket::bind(addr).is_ok()).await;
    }

    #[tokio::test]
    async fn a_scope_handle_keeps_the_node_running() {
        let [a, b] = nodes().await;
        let scope = b.default_scope();
        drop(b);
        scope.add_role("web").unwrap();
        eventually(|| a.nodes("web").names() == ["b"]).await;
    }

    #[tokio::test]
    async fn leaving_is_heard_as_such_and_at_once() {
        let [a, b, c] = nodes().await;
        b.add_role("web").unwrap();
        eventually(|| a.nodes("web").len() == 1 && c.nodes("web").len() == 1).await;
        let (mut at_a, mut at_c) = (a.events(), c.events());
        within(b.leave()).await.unwrap();
        for events in [&mut at_a, &mut at_c] {
            let heard = until(events, "down b left").await;
            assert_eq!(heard, [r#"- default b "web""#, "down b left"]);
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_port_is_free_when_leave_returns() {
        for _ in 0..50 {
            let a = node("a").start().await.unwrap();
            within(a.leave()).await.unwrap();
            UdpSocket::bind(a.local_addr()).expect("it is free");
        }
    }

    #[tokio::test]
    async fn leaving_twice_is_an_error_and_nothing_else() {
        let [a, b] = nodes().await;
        let (first, second) = tokio::join!(within(a.leave()), within(a.leave()));
        assert!(first.is_ok());
        assert!(matches!(second, Err(LeaveError::Stopped)));
        assert!(matches!(within(a.leave()).await, Err(LeaveError::Stopped)));
        eventually(|| b.members().len() == 1).await;
    }

    #[tokio::test]
    async fn leaving_says_how_many_did_not_acknowledge() {
        let config = Config { leave_timeout: Duration::from_millis(200), ..Config::local() };
        let [a] = nodes_with(config, |builder| builder).await;
        let hung = Puppet::start(node("hung").seed(seed(&a))).await;
        eventually(|| a.members().len() == 2).await;
        let _frozen = hung.freeze().await;
        let error = within(a.leave()).await.unwrap_err();
        assert!(matches!(error, LeaveError::Unacknowledged { unheard: 1 }), "{error}");
    }

    /// What a stopped node's calls do: changes are refused, reads say what was known last, and
    /// nothing hangs.
    async fn check_stopped(a: &Cluster) {
        assert_eq!(a.add_role("x"), Err(RoleError::Stopped));
        assert_eq!(a.remove_role("web"), Err(RoleError::Stopped));
        assert_eq!(a.join_scope("jobs").unwrap_err(), ScopeError::Stopped);
        assert_eq!(a.leave_scope("default"), Err(ScopeError::Stopped));
        assert_eq!(a.set_meta("x"), Err(MetaError::Stopped));
        let error = within(a.join(["127.0.0.1:9"])).await.unwrap_err();
        assert!(matches!(error, JoinError::Stopped), "{error}");
        assert!(matches!(within(a.leave()).await, Err(LeaveError::Stopped)));
        a.reconfigure(Config::lan()).unwrap();

        assert_eq!(a.nodes("web").names(), ["a"]);
        assert_eq!(a.my_roles(), ["web"]);
        assert!(a.is_local("a"));
        assert_eq!(a.view().nodes(&a.default_scope(), "web").len(), 1);
        assert!(a.stats().members >= 1);

        assert_eq!(drain(a.events()).await, [""; 0]);
        let scope = a.default_scope();
        assert_eq!(within(scope.wait_for("web", 9)).await.names(), ["a"]);
        let _ = within(scope.delivered(Generation::from_u64(9))).await;
        let mut watch = scope.watch("web");
        assert_eq!(watch.get().len(), 1);
        while within(watch.next()).await.is_some() {}
    }

    #[tokio::test]
    async fn calls_after_leaving_are_refused_and_reads_go_on() {
        let a = node("a").role("web").start().await.unwrap();
        let b = joined("b", &a).await;
        eventually(|| a.members().len() == 2).await;
        within(a.leave()).await.unwrap();
        check_stopped(&a).await;
        drop(b);
    }

    #[test]
    fn a_runtime_that_goes_away_under_a_live_handle_is_a_stop() {
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build();
        let (first, second) = (runtime().unwrap(), runtime().unwrap());
        let a = first.block_on(node("a").role("web").start()).unwrap();
        let waiting = a.default_scope();
        let waiting = second.spawn(async move { waiting.wait_for("never", 1).await.len() });
        let addr = a.local_addr();
        drop(first);
        second.block_on(check_stopped(&a));
        assert_eq!(second.block_on(within(waiting)).unwrap(), 0);
        UdpSocket::bind(addr).expect("the port is free");
    }
}

mod runtimes {
    use super::*;

    async fn two_nodes_meet() {
        let [a, b] = nodes().await;
        a.add_role("web").unwrap();
        let scope = b.default_scope();
        assert_eq!(within(scope.wait_for("web", 1)).await.names(), ["a"]);
        within(b.leave()).await.unwrap();
        eventually(|| a.members().len() == 1).await;
    }

    #[tokio::test(flavor = "current_thread")]
    async fn works_on_one_thread() {
        two_nodes_meet().await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn works_on_many_threads() {
        two_nodes_meet().await;
    }

    #[test]
    fn handles_work_outside_of_any_runtime() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let [a, b] = runtime.block_on(nodes());
        std::thread::spawn(move || {
            a.add_role("web").unwrap();
            let start = std::time::Instant::now();
            while b.nodes("web").is_empty() {
                assert!(start.elapsed() < support::LIMIT);
                std::thread::yield_now();
            }
            drop((a, b));
        })
        .join()
        .unwrap();
    }
}

mod handlers {
    use super::*;
    use rolecall::{EventHandler, ScopeName};

    struct Blocks;

    impl EventHandler for Blocks {
        fn on_role_added(&self, _: &Node, _: &Role, _: &ScopeName) {
            loop {
                std::thread::park();
            }
        }
    }

    /// That this test's process ends is a part of it.
    #[tokio::test]
    async fn one_that_blocks_for_ever_delays_only_itself() {
        let a = node("a").event_handler(Blocks).role("stuck").start().await.unwrap();
        let b = joined("b", &a).await;
        let mut events = a.events();
        for n in 0..100 {
            b.add_role(("shard", n)).unwrap();
            a.add_role(("shard", n)).unwrap();
        }
        eventually(|| a.roles("b").len() == 100 && b.roles("a").len() == 101).await;
        assert!(matches!(next(&mut events).await, Event::RoleAdded { .. }));
        within(a.leave()).await.unwrap();
        eventually(|| b.members().len() == 1).await;
    }

    struct Panics(Heard);

    impl EventHandler for Panics {
        fn on_role_added(&self, node: &Node, role: &Role, scope: &ScopeName) {
            self.0.on_role_added(node, role, scope);
            assert!(*role != "bad", "as a test");
        }
    }

    #[tokio::test]
    async fn one_that_panics_is_counted_and_called_again() {
        let heard = Heard::default();
        let a = node("a").event_handler(Panics(heard.clone())).start().await.unwrap();
        a.add_role("bad").unwrap();
        a.add_role("good").unwrap();
        eventually(|| heard.count(r#"+ default a "good""#) == 1).await;
        assert_eq!(a.stats().handler_panics, 1);
        assert_eq!(a.my_roles(), ["bad", "good"]);
    }
}

mod events {
    use super::*;

    #[tokio::test]
    async fn a_slow_subscriber_hears_how_much_it_missed() {
        let config = Config { event_capacity: 16, ..Config::local() };
        let [a] = nodes_with(config, |builder| builder).await;
        let (slow, mut quick) = (a.events(), a.events());
        a.add_roles(0..10).unwrap();
        for _ in 0..10 {
            next(&mut quick).await;
        }
        a.add_roles(10..100).unwrap();
        let mut slow = slow;
        for _ in 0..16 {
            assert!(matches!(next(&mut slow).await, Event::RoleAdded { .. }));
        }
        assert_eq!(next(&mut slow).await, Event::Lagged { missed: 84 });
        assert_eq!(a.my_roles().len(), 100, "which the maps still know");
        a.add_role("after").unwrap();
        assert_eq!(text(&next(&mut slow).await), r#"+ default a "after""#);
        assert_eq!(a.stats().events_missed, 84 + 75);
    }

    #[tokio::test]
    async fn each_call_is_a_subscription_of_its_own_from_that_moment() {
        let [a] = nodes().await;
        let mut first = a.events();
        a.add_role("one").unwrap();
        let mut second = a.events();
        a.add_role("two").unwrap();
        assert_eq!(until(&mut first, r#"+ default a "two""#).await.len(), 2);
        assert_eq!(until(&mut second, r#"+ default a "two""#).await.len(), 1);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn who_hears_of_something_sees_at_least_that() {
        let [a, b] = nodes().await;
        let mut events = b.events();
        let changes = tokio::task::spawn_blocking({
            let a = a.clone();
            move || {
                for n in 0..300 {
                    a.add_role(("shard", n)).unwrap();
                }
            }
        });
        let newcomer = tokio::spawn(node("c").seed(seed(&a)).role("web").start());
        let (mut roles, mut up) = (0, 0);
        while roles < 301 || up < 1 {
            match next(&mut events).await {
                Event::RoleAdded { node, role, .. } => {
                    assert!(b.nodes(&role).contains(&node), "{role}");
                    assert!(b.roles(node.name()).has(&role), "{role}");
                    roles += 1;
                }
                Event::NodeUp { node } => {
                    assert_eq!(b.node(node.name()).as_ref(), Some(&node));
                    assert!(b.members().contains(&node));
                    assert!(b.roles(node.name()).has("web"));
                    up += 1;
                }
                other => panic!("{other:?}"),
            }
        }
        changes.await.unwrap();
        newcomer.await.unwrap().unwrap();
    }
}

mod readers {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[tokio::test]
    async fn every_thread_sees_a_change_whose_call_has_returned() {
        let [a] = nodes().await;
        let written = AtomicU64::new(0);
        std::thread::scope(|threads| {
            for _ in 0..3 {
                threads.spawn(|| {
                    let mut seen = 0;
                    while seen < 2_000 {
                        seen = written.load(Ordering::Acquire);
                        if seen > 0 {
                            assert_eq!(a.nodes(("own", seen)).names(), ["a"]);
                            assert!(a.default_scope().generation().as_u64() >= seen);
                        }
                    }
                });
            }
            for n in 1..=2_000_u64 {
                a.add_role(("own", n)).unwrap();
                written.store(n, Ordering::Release);
            }
        });
    }

    #[tokio::test]
    async fn a_watch_has_the_latest_set_and_streams_each_new_one() {
        let [a, b] = nodes().await;
        a.add_role("web").unwrap();
        let mut watch = a.default_scope().watch("web");
        assert_eq!(*watch.get(), *a.nodes("web"));
        assert_eq!(within(watch.next()).await.unwrap().names(), ["a"], "the current set at once");
        b.add_role("web").unwrap();
        assert_eq!(within(watch.next()).await.unwrap().names(), ["a", "b"]);
        assert_eq!(watch.get().len(), 2);
        // The latest wins: sets in between need not be seen.
        for n in 0..50 {
            a.add_role(("other", n)).unwrap();
            a.remove_role("web").unwrap();
            a.add_role("web").unwrap();
        }
        a.remove_role("web").unwrap();
        while within(watch.next()).await.unwrap().names() != ["b"] {}
        assert_eq!(watch.get().len(), 1);
        // A role of another scope is none of its business.
        b.scope("jobs").add_role("web").unwrap();
        b.remove_role("web").unwrap();
        while !within(watch.next()).await.unwrap().is_empty() {}
    }

    #[tokio::test]
    async fn waiting_for_a_role_resolves_when_enough_hold_it() {
        let [a, b, c] = nodes().await;
        let scope = a.default_scope();
        assert!(within(scope.wait_for("web", 0)).await.is_empty());
        let waiting = tokio::spawn(async move { scope.wait_for("web", 2).await });
        b.add_role("web").unwrap();
        eventually(|| a.nodes("web").len() == 1).await;
        assert!(!waiting.is_finished());
        c.add_role("web").unwrap();
        assert_eq!(within(waiting).await.unwrap().names(), ["b", "c"]);
    }

    #[tokio::test]
    async fn a_receipt_names_those_who_have_a_change() {
        let [a, b, c] = nodes().await;
        c.scope("jobs").join().unwrap();
        a.scope("jobs").add_role("worker").unwrap();
        a.add_role("web").unwrap();
        let scope = a.default_scope();
        let delivery = within(scope.delivered(scope.generation())).await;
        assert_eq!(delivery.reached.names(), ["b", "c"]);
        assert!(delivery.missing.is_empty());
        assert_eq!(b.nodes("web").names(), ["a"]);
        // Of a scope only its members are asked.
        let jobs = a.scope("jobs");
        eventually(|| c.scope("jobs").nodes("worker").len() == 1).await;
        let delivery = within(jobs.delivered(jobs.generation())).await;
        assert_eq!(delivery.reached.names(), ["c"]);
    }

    #[tokio::test]
    async fn pick_is_any_holder() {
        let [a, b, c] = nodes().await;
        assert!(a.default_scope().pick("web").is_none());
        b.add_role("web").unwrap();
        c.add_role("web").unwrap();
        eventually(|| a.nodes("web").len() == 2).await;
        let scope = a.default_scope();
        let mut picked: Vec<Node> = (0..200).filter_map(|_| scope.pick("web")).collect();
        assert_eq!(picked.len(), 200);
        picked.sort_unstable();
        picked.dedup();
        assert_eq!(picked, a.nodes("web").to_vec());
    }

    #[tokio::test]
    async fn the_owner_of_a_key_is_the_same_everywhere_and_always() {
        let all = nodes::<4>().await;
        for it in &all {
            it.add_role("cache").unwrap();
        }
        for it in &all {
            eventually(|| it.nodes("cache").len() == 4).await;
        }
        // Frozen: another platform or version must not move keys.
        let owners = |it: &Cluster| {
            let scope = it.default_scope();
            let texts =
                ["user:1", "user:2", "user:3", "user:4", ""].map(|key| scope.owner("cache", key));
            let numbers = [1_u64, 2, u64::MAX].map(|key| scope.owner("cache", key));
            let pair = scope.owner("cache", ("tenant", 7_u32));
            let all = texts.into_iter().chain(numbers).chain([pair]);
            all.map(|owner| owner.unwrap().name().to_owned()).collect::<Vec<_>>()
        };
        for it in &all {
            assert_eq!(owners(it), ["b", "c", "b", "a", "b", "a", "a", "b", "d"]);
        }
        assert!(all[0].default_scope().owner("none", "user:1").is_none());
        // When a node gives the role up, only its own keys move.
        let [a, .., d] = &all;
        let scope = a.default_scope();
        let before: Vec<_> = (0..200).map(|n| scope.owner("cache", n).unwrap()).collect();
        d.remove_role("cache").unwrap();
        eventually(|| a.nodes("cache").len() == 3).await;
        for (n, owner) in before.iter().enumerate() {
            let now = scope.owner("cache", i32::try_from(n).unwrap()).unwrap();
            assert!(now == *owner || owner.name() == "d");
        }
    }

    #[tokio::test]
    async fn a_view_is_one_pinned_moment_until_it_is_refreshed() {
        let [a] = nodes().await;
        let scope = a.default_scope();
        let mut view = a.view();
        assert!(view.nodes(&scope, "web").is_empty());
        a.add_role("web").unwrap();
        view.refresh();
        assert_eq!(view.nodes(&scope, "web").len(), 1);
    }
}

mod start_errors {
    use super::*;
    use std::future::Future;
    use std::task::{Context, Poll, Waker};

    #[tokio::test]
    async fn invalid_names() {
        let long = "x".repeat(256);
        for name in ["", "a\nb", &long] {
            let builders = [
                ("node", node(name)),
                ("cluster", node("a").cluster(name)),
                ("scope", node("a").default_scope(name)),
                ("scope", node("a").scope(name)),
            ];
            for (expected, builder) in builders {
                match builder.start().await {
                    Err(StartError::InvalidName { what, name: given }) => {
                        assert_eq!((what, given.as_str()), (expected, name));
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        node(&"x".repeat(255)).start().await.unwrap();
    }

    #[tokio::test]
    async fn invalid_addresses() {
        for bind in ["", "nonsense", "127.0.0.1", "127.0.0.1:99999"] {
            let error = Cluster::builder("a").bind(bind).start().await.unwrap_err();
            let StartError::InvalidAddress { address, .. } = &error else { panic!("{error:?}") };
            assert_eq!(address, bind);
        }
        for advertise in ["nonsense", "0.0.0.0:7946", "[::]:0"] {
            let error = node("a").advertise(advertise).start().await.unwrap_err();
            let StartError::InvalidAddress { address, .. } = &error else { panic!("{error:?}") };
            assert_eq!(address, advertise);
        }
    }

    #[tokio::test]
    async fn an_address_in_use() {
        let a = node("a").start().await.unwrap();
        let error = node("b").bind(a.local_addr().to_string()).start().await.unwrap_err();
        let StartError::Bind { addr, source } = error else { panic!("{error:?}") };
        assert_eq!(addr, a.local_addr());
        assert_eq!(source.kind(), std::io::ErrorKind::AddrInUse);
    }

    #[tokio::test]
    async fn a_name_that_a_live_node_has() {
        let [a, b] = nodes().await;
        let mut events = a.events();
        for asked in [&a, &b] {
            let error = within(node("b").seed(seed(asked)).start()).await.unwrap_err();
            let StartError::NameTaken { name, holder } = error else { panic!("{error:?}") };
            assert_eq!((name.as_str(), holder), ("b", b.local_addr()));
        }
        // The holder is none the worse for it.
        b.add_role("fence").unwrap();
        let heard = until(&mut events, r#"+ default b "fence""#).await;
        assert!(heard.iter().all(|it| !it.starts_with("down")), "{heard:?}");
        assert_eq!(a.members().names(), ["a", "b"]);
        assert_eq!(a.node("b").unwrap().id(), b.local_node().id());
    }

    #[tokio::test]
    async fn a_configuration_metadata_roles_and_scopes_that_are_not_allowed() {
        let config = Config { gossip_fanout: 0, ..Config::local() };
        let error = node("a").config(config).start().await.unwrap_err();
        let StartError::Config(error) = error else { panic!("{error:?}") };
        assert_eq!(
            (error.field(), error.value(), error.allowed()),
            ("gossip_fanout", "0", "1 to 64")
        );

        let error = node("a").meta(vec![0; 4097]).start().await.unwrap_err();
        let expected = MetaError::TooLarge { len: 4097, max: 4096 };
        assert!(matches!(&error, StartError::Meta(it) if *it == expected), "{error:?}");

        let error = node("a").role("x".repeat(5000)).start().await.unwrap_err();
        assert!(matches!(error, StartError::Role(RoleError::TooLarge { .. })), "{error:?}");

        let many = (0..256).map(|n| format!("scope-{n}"));
        let error = node("a").scopes(many).start().await.unwrap_err();
        let too_many = matches!(error, StartError::Scope(ScopeError::TooMany { max: 256 }));
        assert!(too_many, "{error:?}");
    }

    #[test]
    fn no_runtime() {
        let mut start = Box::pin(node("a").start());
        let polled = start.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        let no_runtime = matches!(polled, Poll::Ready(Err(StartError::NoRuntime)));
        assert!(no_runtime, "{polled:?}");
    }

    #[test]
    fn a_runtime_without_io_or_time() {
        let builder = tokio::runtime::Builder::new_current_thread;
        for runtime in
            [builder().build(), builder().enable_io().build(), builder().enable_time().build()]
        {
            let error = runtime.unwrap().block_on(node("a").start()).unwrap_err();
            assert!(matches!(error, StartError::NoRuntime), "{error:?}");
        }
    }

    #[tokio::test]
    async fn leave_nothing_behind() {
        let port = free_port();
        let bind = format!("127.0.0.1:{port}");
        let heard = Heard::default();
        let builder = node("a").bind(&bind).event_handler(heard).role("x".repeat(5000));
        builder.start().await.unwrap_err();
        node("a").bind(&bind).start().await.expect("the port is free");
    }
}

mod joining {
    use super::*;

    #[tokio::test]
    async fn more_seeds_can_be_contacted_later() {
        let (a, b, c) = (node("a").start(), node("b").start(), node("c").start());
        let (a, b, c) = (a.await.unwrap(), b.await.unwrap(), c.await.unwrap());
        assert_eq!(within(c.join([seed(&a), seed(&b)])).await.unwrap(), 2);
        for it in [&a, &b, &c] {
            eventually(|| it.members().len() == 3).await;
        }
        assert_eq!(within(c.join([seed(&a)])).await.unwrap(), 1, "who is a member has answered");
    }

    #[tokio::test]
    async fn errors_say_what_was_wrong() {
        let a = node("a").config(impatient()).start().await.unwrap();
        let error = a.join(Vec::<String>::new()).await.unwrap_err();
        assert!(matches!(error, JoinError::NoSeeds), "{error}");
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let error = within(a.join([silent.local_addr().unwrap().to_string()])).await.unwrap_err();
        assert!(matches!(error, JoinError::NoAnswer), "{error}");
        let error = within(a.join(["nonsense"])).await.unwrap_err();
        let said = "seed \"nonsense\" is not usable: a seed is host:port, with brackets around an \
                    IPv6 address";
        assert_eq!(error.to_string(), said);
        let start = node("b").seed("127.0.0.1").start();
        let error = within(start).await.unwrap_err();
        assert!(
            matches!(&error, StartError::InvalidAddress { address, .. } if address == "127.0.0.1"),
            "{error}"
        );
        within(a.leave()).await.unwrap();
        let error = within(a.join(["127.0.0.1:9"])).await.unwrap_err();
        assert!(matches!(error, JoinError::Stopped), "{error}");
    }

    #[tokio::test]
    async fn whose_name_is_taken_hears_it_when_it_joins_later() {
        let [a, b] = nodes().await;
        let twin = node("b").start().await.unwrap();
        let mut events = twin.events();
        assert_eq!(within(twin.join([seed(&a)])).await.unwrap(), 1, "the seed has answered");
        let event = within(events.next()).await.unwrap();
        let Event::NameConflict { name, other } = event else { panic!("{event:?}") };
        assert_eq!((name.as_str(), other), ("b", b.local_addr()));
        assert_eq!(twin.members().names(), ["b"]);
        assert_eq!(a.node("b").unwrap().addr(), b.local_addr());
    }

    #[tokio::test]
    async fn seeds_may_be_names() {
        let a = node("a").start().await.unwrap();
        let by_name = format!("localhost:{}", a.local_addr().port());
        let b = within(node("b").seed(by_name).start()).await.unwrap();
        assert_eq!(b.members().names(), ["a", "b"], "known when start returns");
        eventually(|| a.members().len() == 2).await;
    }

    #[tokio::test]
    async fn a_node_may_start_before_its_seed() {
        let bind = format!("127.0.0.1:{}", free_port());
        let b = within(node("b").seed(&bind).config(impatient()).start()).await.unwrap();
        assert_eq!(b.members().names(), ["b"]);
        b.add_role("web").unwrap();
        let a = node("a").bind(&bind).start().await.unwrap();
        eventually(|| a.nodes("web").names() == ["b"] && b.members().len() == 2).await;
    }

    #[tokio::test]
    async fn a_seed_list_may_hold_the_node_itself() {
        let binds = [free_port(), free_port()].map(|port| format!("127.0.0.1:{port}"));
        let start = |name: &str, bind: &String| node(name).bind(bind).seeds(&binds).start();
        let (a, b) = tokio::join!(start("a", &binds[0]), start("b", &binds[1]));
        let (a, b) = (a.unwrap(), b.unwrap());
        eventually(|| a.members().len() == 2 && b.members().len() == 2).await;
        // Alone in its list, it has nobody to wait for.
        let bind = format!("127.0.0.1:{}", free_port());
        let config = Config { join_timeout: Duration::from_mins(10), ..Config::local() };
        within(node("c").bind(&bind).seed(&bind).config(config).start()).await.unwrap();
    }

    #[tokio::test]
    async fn start_waits_for_a_seed_that_does_not_resolve_as_for_one_that_is_silent() {
        let config = Config { join_timeout: Duration::from_mins(10), ..Config::local() };
        let start = node("a").seed("nobody.invalid:7946").config(config).start();
        let waited = tokio::time::timeout(Duration::from_millis(500), start).await;
        assert!(waited.is_err(), "it returned before join_timeout");
    }

    #[tokio::test]
    async fn clusters_of_different_names_never_merge() {
        let (one, two) = (free_port(), free_port());
        let start = |name: &str, cluster: &str, own: u16, other: u16| {
            node(name)
                .cluster(cluster)
                .config(Config { reconnect_interval: Duration::from_millis(50), ..impatient() })
                .bind(format!("127.0.0.1:{own}"))
                .seed(format!("127.0.0.1:{other}"))
                .start()
        };
        let (a, b) = tokio::join!(start("a", "blue", one, two), start("b", "green", two, one));
        let (a, b) = (a.unwrap(), b.unwrap());
        let mut events = a.events();
        let before = (a.stats().dropped.other_cluster, b.stats().dropped.other_cluster);
        eventually(|| {
            a.stats().dropped.other_cluster > before.0 + 5
                && b.stats().dropped.other_cluster > before.1 + 5
        })
        .await;
        assert_eq!([a.members().len(), b.members().len()], [1, 1]);
        a.add_role("fence").unwrap();
        assert_eq!(until(&mut events, r#"+ default a "fence""#).await.len(), 1);
    }

    #[tokio::test]
    async fn a_node_that_crashed_comes_back_under_its_name_at_another_address() {
        let [a, b] = nodes().await;
        let c = joined("c", &a).await;
        eventually(|| b.members().len() == 3).await;
        let (old, mut events) = (c.local_node(), b.events());
        drop(c);
        let c = within(node("c").seed(seed(&a)).role("new").start()).await.unwrap();
        let heard = until(&mut events, r#"+ default c "new""#).await;
        let down = heard.iter().position(|it| it.starts_with("down c")).unwrap();
        assert!(down < heard.iter().position(|it| it == "up c").unwrap(), "{heard:?}");
        let known = b.node("c").unwrap();
        assert_eq!(known, c.local_node());
        assert_ne!(known.id(), old.id());
        assert_eq!(known.addr(), c.local_addr());
    }
}

mod addresses {
    use super::*;

    #[tokio::test]
    async fn advertise_may_be_a_name_and_port_zero_is_the_bound_one() {
        let a = node("a").advertise("localhost:0").start().await.unwrap();
        assert_eq!(a.local_node().addr().port(), a.local_addr().port());
        assert!(a.local_node().addr().ip().is_loopback());
        let b = joined("b", &a).await;
        eventually(|| a.members().len() == 2).await;
        assert_eq!(b.node("a").unwrap().addr(), a.local_node().addr());
    }

    #[tokio::test]
    async fn a_wildcard_is_bound_and_something_that_can_be_dialled_is_advertised() {
        let a = node("a").bind("0.0.0.0:0").start().await.unwrap();
        assert!(a.local_addr().ip().is_unspecified());
        assert!(!a.local_node().addr().ip().is_unspecified());
        let b = node("b").bind("0.0.0.0:0").seed(format!("127.0.0.1:{}", a.local_addr().port()));
        let b = within(b.start()).await.unwrap();
        eventually(|| a.members().len() == 2 && b.members().len() == 2).await;
    }

    fn has_ipv6() -> bool {
        UdpSocket::bind("[::1]:0").is_ok()
    }

    #[tokio::test]
    async fn ipv6_works_like_ipv4() {
        if !has_ipv6() {
            return;
        }
        let a = node("a").bind("[::1]:0").start().await.unwrap();
        let b = node("b").bind("[::1]:0").seed(seed(&a)).role("web").start().await.unwrap();
        assert!(b.local_addr().is_ipv6());
        eventually(|| a.nodes("web").names() == ["b"] && b.members().len() == 2).await;
        within(b.leave()).await.unwrap();
        eventually(|| a.members().len() == 1).await;
    }

    #[tokio::test]
    async fn an_ipv6_wildcard_serves_both_families() {
        if !has_ipv6() {
            return;
        }
        for (peer, dual) in [("127.0.0.1:0", "127.0.0.1:0"), ("[::1]:0", "[::1]:0")] {
            let a = node("a").bind("[::]:0").advertise(dual).start().await.unwrap();
            let b = node("b").bind(peer).seed(seed(&a)).start().await.unwrap();
            b.add_role("web").unwrap();
            eventually(|| a.nodes("web").len() == 1 && b.members().len() == 2).await;
            within(b.leave()).await.unwrap();
        }
        // Nodes that serve both may be known by either.
        let a = node("a").bind("[::]:0").advertise("[::1]:0").start().await.unwrap();
        let b = node("b").bind("[::]:0").advertise("127.0.0.1:0").seed(seed(&a)).start();
        let b = b.await.unwrap();
        let c = node("c").bind("[::]:0").advertise("[::1]:0").seed(seed(&b)).start().await.unwrap();
        for it in [&a, &b, &c] {
            it.add_role("web").unwrap();
        }
        for it in [&a, &b, &c] {
            eventually(|| it.nodes("web").len() == 3).await;
        }
        within(c.leave()).await.unwrap();
    }
}

mod metadata {
    use super::*;

    #[tokio::test]
    async fn travels_with_the_node_and_changes_are_events() {
        let a = node("a").meta(b"http=:80".as_slice()).start().await.unwrap();
        let b = joined("b", &a).await;
        assert_eq!(b.node("a").unwrap().meta(), b"http=:80");
        let mut events = b.events();
        a.set_meta("http=:81").unwrap();
        a.set_meta("http=:81").unwrap();
        assert_eq!(a.local_node().meta(), b"http=:81");
        assert_eq!(a.node("a").unwrap().meta(), b"http=:81");
        let Event::NodeUpdated { node } = next(&mut events).await else { panic!() };
        assert_eq!((node.name(), node.meta()), ("a", b"http=:81".as_slice()));
        assert_eq!(b.node("a").unwrap().meta(), b"http=:81");
        let members = b.members();
        assert_eq!(members[0].meta(), b"http=:81");
        a.set_meta("").unwrap();
        eventually(|| b.node("a").unwrap().meta().is_empty()).await;
    }

    #[tokio::test]
    async fn nodes_in_role_sets_have_it_too() {
        let [a, b] = nodes().await;
        a.add_role("web").unwrap();
        eventually(|| b.nodes("web").len() == 1).await;
        a.set_meta("new").unwrap();
        eventually(|| b.nodes("web")[0].meta() == b"new").await;
        eventually(|| b.all_nodes()[0].meta() == b"new").await;
    }

    #[tokio::test]
    async fn over_the_limit_is_refused_and_changes_nothing() {
        let a = node("a").meta("old").start().await.unwrap();
        let error = a.set_meta(vec![0; 4097]).unwrap_err();
        assert_eq!(error, MetaError::TooLarge { len: 4097, max: 4096 });
        assert_eq!(a.local_node().meta(), b"old");
    }

    #[tokio::test]
    async fn and_roles_arrive_whole_through_the_smallest_datagrams() {
        let config = Config { max_datagram_bytes: 512, ..Config::local() };
        let meta: Vec<u8> = (0..4096).map(|n| u8::try_from(n % 251).unwrap()).collect();
        let [a, b] = nodes_with(config.clone(), |builder| builder).await;
        a.set_meta(meta.clone()).unwrap();
        a.add_roles((0..2_000).map(|n| ("shard", n))).unwrap();
        a.add_role("x".repeat(4_000)).unwrap();
        eventually(|| b.roles("a").len() == 2_001).await;
        eventually(|| b.node("a").unwrap().meta() == meta).await;
        let c = node("c").config(config).meta(meta.clone()).seed(seed(&b)).start().await.unwrap();
        for it in [&a, &b] {
            eventually(|| it.node("c").is_some_and(|node| node.meta() == meta)).await;
        }
        eventually(|| c.node("a").unwrap().meta() == meta && c.roles("a") == a.my_roles()).await;
    }
}

mod tuning {
    use super::*;

    #[tokio::test]
    async fn can_be_changed_while_the_node_runs() {
        let [a, b] = nodes().await;
        assert_eq!(a.config(), Config::local());
        for it in [&a, &b] {
            it.reconfigure(with_quick_pull()).unwrap();
        }
        assert_eq!(a.config(), with_quick_pull());
        let pulls = a.stats().pulls;
        eventually(|| a.stats().pulls > pulls + 5).await;
    }

    #[tokio::test]
    async fn that_is_not_allowed_names_the_field_and_changes_nothing() {
        let [a] = nodes().await;
        let wrong = Config { max_datagram_bytes: 511, ..Config::local() };
        let error = a.reconfigure(wrong).unwrap_err();
        assert_eq!(error.field(), "max_datagram_bytes");
        assert_eq!(error.value(), "511");
        assert_eq!(error.allowed(), "512 to 65507");
        assert_eq!(a.config(), Config::local());
    }

    #[tokio::test]
    async fn roles_over_a_limit_are_refused_and_change_nothing() {
        let [a] = nodes().await;
        let error = a.add_roles([role!("fine"), role!("x".repeat(5000))]).unwrap_err();
        assert!(matches!(error, RoleError::TooLarge { max: 4096, .. }), "{error}");
        let error = a.add_roles(0..65_537).unwrap_err();
        assert_eq!(error, RoleError::TooMany { count: 65_537, max: 65_536 });
        let error = a.scope("").add_role("x").unwrap_err();
        assert_eq!(error, RoleError::Scope(ScopeError::InvalidName { name: String::new() }));
        assert!(a.my_roles().is_empty());
    }
}

mod bad_input {
    use super::*;
    use rand::{RngExt, SeedableRng};
    use std::net::SocketAddr;
    use std::sync::{Arc, Mutex};

    /// Two sockets between two nodes, each of which takes one of them for the other node; keeps
    /// what goes from the second node to the first.
    struct Tap {
        sides: [UdpSocket; 2],
        nodes: Mutex<[Option<SocketAddr>; 2]>,
        kept: Mutex<Vec<Vec<u8>>>,
    }

    impl Tap {
        fn new() -> Arc<Tap> {
            let side = || UdpSocket::bind("127.0.0.1:0").unwrap();
            let sides = [side(), side()];
            Arc::new(Tap { sides, nodes: Mutex::default(), kept: Mutex::default() })
        }

        /// Where one of the nodes seems to be, for the other.
        fn addr(&self, node: usize) -> String {
            self.sides[node].local_addr().unwrap().to_string()
        }

        /// Carries what arrives at one side out of the other. It ends with the process.
        fn carry(&self, side: usize) {
            let mut buffer = vec![0; 65_536];
            while let Ok((len, from)) = self.sides[side].recv_from(&mut buffer) {
                let mut nodes = self.nodes.lock().unwrap();
                nodes[1 - side] = Some(from);
                if let Some(to) = nodes[side] {
                    let _ = self.sides[1 - side].send_to(&buffer[..len], to);
                }
                if side == 0 {
                    self.kept.lock().unwrap().push(buffer[..len].to_vec());
                }
            }
        }
    }

    #[tokio::test]
    async fn twenty_thousand_bad_datagrams_harm_nobody() {
        let tap = Tap::new();
        for side in [0, 1] {
            let tap = tap.clone();
            std::thread::spawn(move || tap.carry(side));
        }
        let a = node("a").advertise(tap.addr(0)).start().await.unwrap();
        tap.nodes.lock().unwrap()[0] = Some(a.local_addr());
        let b = node("b").config(with_quick_pull()).advertise(tap.addr(1)).seed(tap.addr(0));
        let b = within(b.start()).await.unwrap();
        eventually(|| a.members().len() == 2).await;
        for n in 0..50 {
            b.add_role(("shard", n)).unwrap();
            b.set_meta(format!("meta {n}")).unwrap();
            a.add_role(("shard", n)).unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        eventually(|| tap.kept.lock().unwrap().len() > 40).await;
        let real = tap.kept.lock().unwrap().clone();
        let id = a.local_node().id();

        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(7);
        let before = a.stats();
        for sent in 1..=20_000_u64 {
            let mut datagram = real[rng.random_range(0..real.len())].clone();
            match sent % 3 {
                0 => {
                    datagram.resize(rng.random_range(0..1_400), 0);
                    rng.fill(&mut datagram[..]);
                }
                1 => datagram.truncate(rng.random_range(0..datagram.len())),
                // What is changed with more cunning is a forgery, against which there is no defence
                // without authentication.
                _ => {
                    for _ in 0..rng.random_range(1..8) {
                        let at = rng.random_range(0..datagram.len());
                        datagram[at] ^= 1 << rng.random_range(0..8);
                    }
                }
            }
            // As if the peer had sent it.
            tap.sides[1].send_to(&datagram, a.local_addr()).unwrap();
            if sent % 50 == 0 {
                // In step, so that the socket's buffer does not lose them.
                eventually(|| a.stats().datagrams_in >= before.datagrams_in + sent).await;
            }
        }
        let dropped = a.stats().dropped;
        assert!(dropped.foreign >= before.dropped.foreign + 20_000 / 3, "{dropped:?}");
        assert!(dropped.corrupt > before.dropped.corrupt + 5_000, "{dropped:?}");
        // The node is the same, and takes part as before.
        assert_eq!(a.local_node().id(), id);
        a.add_role("alive").unwrap();
        eventually(|| b.nodes("alive").names() == ["a"]).await;
        assert_eq!(b.node("a").unwrap().id(), id);
        eventually(|| a.node("b").is_some_and(|it| it.id() == b.local_node().id())).await;
    }
}
