/// Makes one test of every case of the transport suite, in the module where it stands.
///
/// ```
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/shelf_harness.rs"));
/// # fn main() {}
/// mod conformance {
///     use super::*;
///     pillarbox_testkit::transport_suite!(#[tokio::test] async harness = MyHarness::default());
/// }
/// mod without_a_runtime {
///     use super::*;
///     pillarbox_testkit::transport_suite!(#[test] block_on = futures_executor::block_on, harness = MyHarness::default());
/// }
/// ```
///
/// The harness's expression is evaluated once per case; in the `async` form it may await.
///
/// A case that is known to fail is named before the harness, with the reason: `allow_failing = { case => "why, and where it is
/// followed up" }, harness = …`. Its test passes while the case fails, and fails as soon as the case holds, so that the line
/// does not outlive its reason.
#[allow(clippy::test_attr_in_doctest, reason = "what the macro makes are tests")]
#[macro_export]
macro_rules! transport_suite {
    ($(#$attribute:tt)+ async $(allow_failing = { $($case:ident => $why:literal),* $(,)? },)? harness = $($harness:tt)+) => {
        $crate::__each_transport_case!(__transport_tests {
            async [$(#$attribute)+] [$($harness)+] [&[$($((stringify!($case), $why)),*)?]]
        });
    };
    ($(#$attribute:tt)+ block_on = $block_on:path, $(allow_failing = { $($case:ident => $why:literal),* $(,)? },)? harness = $($harness:tt)+) => {
        $crate::__each_transport_case!(__transport_tests {
            $block_on, [$(#$attribute)+] [$($harness)+] [&[$($((stringify!($case), $why)),*)?]]
        });
    };
}

/// Makes a test of each case. The caller's tokens pass through as one tree, since they repeat differently from the cases.
#[doc(hidden)]
#[macro_export]
macro_rules! __transport_tests {
    ($arguments:tt $($group:ident { $($name:ident $needs:tt)+ })+) => {
        $($($crate::__transport_test! { $arguments $group $name $needs })+)+
        $crate::__transport_declarations! { $arguments }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __transport_test {
    ({ async [$($attribute:tt)+] [$($harness:tt)+] [$allowed:expr] } $group:ident $name:ident [$($need:ident)*]) => {
        $($attribute)+
        async fn $name() {
            let needs = &[$($crate::transport::Ability::$need),*];
            let trial = $crate::transport::Trial::new(stringify!($name), needs, $($harness)+).allow_failing($allowed);
            if trial.applies() {
                trial.report($crate::transport::cases::$group::$name(&trial).await);
            }
        }
    };
    ({ $block_on:path, [$($attribute:tt)+] [$($harness:tt)+] [$allowed:expr] } $group:ident $name:ident [$($need:ident)*]) => {
        $($attribute)+
        fn $name() {
            let needs = &[$($crate::transport::Ability::$need),*];
            let trial = $crate::transport::Trial::new(stringify!($name), needs, $($harness)+).allow_failing($allowed);
            if trial.applies() {
                trial.report($block_on($crate::transport::cases::$group::$name(&trial)));
            }
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __transport_declarations {
    ({ async [$($attribute:tt)+] [$($harness:tt)+] [$allowed:expr] }) => {
        $($attribute)+
        async fn declares_what_it_can() {
            let trial = $crate::transport::Trial::new("declares_what_it_can", &[], $($harness)+).allow_failing($allowed);
            trial.report(trial.declarations().await);
        }
    };
    ({ $block_on:path, [$($attribute:tt)+] [$($harness:tt)+] [$allowed:expr] }) => {
        $($attribute)+
        fn declares_what_it_can() {
            let trial = $crate::transport::Trial::new("declares_what_it_can", &[], $($harness)+).allow_failing($allowed);
            trial.report($block_on(trial.declarations()));
        }
    };
}

macro_rules! table_of_cases {
    ({} $($group:ident { $($name:ident [$($need:ident)*])+ })+) => {
        /// Every case, with what it needs.
        pub const CASES: &[Case] =
            &[$($(Case { name: stringify!($name), needs: &[$(Ability::$need),*] }),+),+];
    };
}
pub(super) use table_of_cases;

/// The only list of the cases: the file that each stands in, its name, and what it needs.
#[doc(hidden)]
#[macro_export]
macro_rules! __each_transport_case {
    ($callback:ident $arguments:tt) => {
        $crate::__each_transport_case! { @list [$crate::$callback] $arguments }
    };
    (@list [$($callback:tt)+] $arguments:tt) => {
        $($callback)+! { $arguments
            delivering {
                ok_means_received []
                empty_batch []
                payload_and_headers_roundtrip []
                id_travels []
                every_destination_is_listed []
            }
            outcomes {
                outcomes_are_per_message [Unroutable]
                outcomes_are_per_message_in_a_large_batch [Unroutable]
                publishes_side_by_side_keep_their_outcomes []
                unroutable_is_unroutable [Unroutable]
                oversize_is_rejected [Oversize]
            }
            order {
                order_within_key_is_kept []
                prefix_per_key [PrefixPerKey]
            }
            cancel {
                cancel_at_every_await_then_reuse []
                dropped_probe_has_no_effect []
            }
            outages {
                broker_gone_before_the_batch [Outage]
                broker_gone_during_the_batch [Outage]
                broker_gone_after_the_batch [Outage]
                not_applied_means_not_received [Outage]
                probe_tells_whether_it_is_there [Outage]
            }
        }
    };
}
