/// Makes one test of every case of the storage suite, in the module where it stands.
///
/// ```ignore
/// mod conformance {
///     pillarbox_testkit::storage_suite!(#[tokio::test] async harness = MyHarness::new());
/// }
/// mod without_a_runtime {
///     pillarbox_testkit::storage_suite!(#[test] block_on = pollster::block_on, harness = MyHarness::new());
/// }
/// ```
///
/// The harness's expression is evaluated once per case; in the `async` form it may await.
#[macro_export]
macro_rules! storage_suite {
    ($(#$attribute:tt)+ async harness = $($harness:tt)+) => {
        $crate::__each_storage_case!(__storage_tests { async [$(#$attribute)+] [$($harness)+] });
    };
    ($(#$attribute:tt)+ block_on = $block_on:path, harness = $($harness:tt)+) => {
        $crate::__each_storage_case!(__storage_tests { $block_on, [$(#$attribute)+] [$($harness)+] });
    };
}

/// Makes a test of each case. The caller's tokens pass through as one tree, since they repeat differently from the cases.
#[doc(hidden)]
#[macro_export]
macro_rules! __storage_tests {
    ($arguments:tt $($group:ident { $($name:ident $needs:tt)+ })+) => {
        $($($crate::__storage_test! { $arguments $group $name $needs })+)+
        $crate::__storage_declarations! { $arguments }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __storage_test {
    ({ async [$($attribute:tt)+] [$($harness:tt)+] } $group:ident $name:ident [$($need:ident)*]) => {
        $($attribute)+
        async fn $name() {
            let needs = &[$($crate::storage::Ability::$need),*];
            let trial = $crate::storage::Trial::new(stringify!($name), needs, $($harness)+);
            if trial.applies() {
                trial.report($crate::storage::cases::$group::$name(&trial).await);
            }
        }
    };
    ({ $block_on:path, [$($attribute:tt)+] [$($harness:tt)+] } $group:ident $name:ident [$($need:ident)*]) => {
        $($attribute)+
        fn $name() {
            let needs = &[$($crate::storage::Ability::$need),*];
            let trial = $crate::storage::Trial::new(stringify!($name), needs, $($harness)+);
            if trial.applies() {
                trial.report($block_on($crate::storage::cases::$group::$name(&trial)));
            }
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __storage_declarations {
    ({ async [$($attribute:tt)+] [$($harness:tt)+] }) => {
        $($attribute)+
        async fn declares_what_it_can() {
            let trial = $crate::storage::Trial::new("declares_what_it_can", &[], $($harness)+);
            trial.report(trial.declarations().await);
        }
    };
    ({ $block_on:path, [$($attribute:tt)+] [$($harness:tt)+] }) => {
        $($attribute)+
        fn declares_what_it_can() {
            let trial = $crate::storage::Trial::new("declares_what_it_can", &[], $($harness)+);
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
macro_rules! __each_storage_case {
    ($callback:ident $arguments:tt) => {
        $crate::__each_storage_case! { @list [$crate::$callback] $arguments }
    };
    (@list [$($callback:tt)+] $arguments:tt) => {
        $($callback)+! { $arguments
            claims {
                claims_are_exclusive []
                limit_is_respected []
                zero_limit []
            }
            enqueueing {
                commit_is_visible []
                rollback_is_invisible []
                uncommitted_is_invisible []
            }
            fencing {
                stale_settle_is_fenced []
                expired_but_untaken_claim_still_settles []
                claim_repeated_with_its_nonce_answers_the_same_runs []
            }
        }
    };
}
