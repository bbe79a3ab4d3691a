%% The lookup of `src/lookup` in Erlang: ets:lookup on a `set` table with read_concurrency, keyed
%% by binaries. Prints a line of JSON for each number of roles given; what an empty loop over the
%% same keys takes is subtracted.
-module(lookup).
-export([main/0]).

-define(BATCH, 1000).
-define(WARM_UP, 200).
-define(BATCHES, 2000).

main() ->
    Sizes = [list_to_integer(Size) || Size <- init:get_plain_arguments()],
    [measure(Size) || Size <- Sizes],
    halt(0).

measure(Roles) ->
    Table = ets:new(roles, [set, {read_concurrency, true}]),
    [ets:insert(Table, {name(N), holders(N)}) || N <- lists:seq(0, Roles - 1)],
    rand:seed(exsss, {1, 2, 3}),
    Names = list_to_tuple([name(N) || N <- lists:seq(0, Roles - 1)]),
    Times = [batch(Table, Names, Roles) || _ <- lists:seq(1, ?WARM_UP + ?BATCHES)],
    {Lookups, Loops} = lists:unzip(lists:nthtail(?WARM_UP, Times)),
    Loop = share(Loops, 0.5),
    [P50, P99] = [(share(Lookups, Share) - Loop) / ?BATCH || Share <- [0.5, 0.99]],
    io:format("{\"roles\":~b,\"p50_ns\":~.3f,\"p99_ns\":~.3f,\"loop_ns\":~.3f}~n",
              [Roles, P50, P99, Loop / ?BATCH]),
    ets:delete(Table).

%% The same keys for both loops, each key made before the clock is read.
batch(Table, Names, Roles) ->
    Keys = [element(rand:uniform(Roles), Names) || _ <- lists:seq(1, ?BATCH)],
    Loop = time(fun() -> skip(Keys, 0) end),
    Lookup = time(fun() -> look_up(Table, Keys, 0) end),
    {Lookup, Loop}.

time(Fun) ->
    Started = erlang:monotonic_time(nanosecond),
    ?BATCH = Fun(),
    erlang:monotonic_time(nanosecond) - Started.

look_up(Table, [Key | Keys], Found) ->
    [{_, _}] = ets:lookup(Table, Key),
    look_up(Table, Keys, Found + 1);
look_up(_, [], Found) ->
    Found.

skip([_ | Keys], Found) -> skip(Keys, Found + 1);
skip([], Found) -> Found.

name(N) -> iolist_to_binary(["service-", integer_to_list(N)]).

holders(N) -> [{(N + I) rem 100, <<"127.0.0.1">>, 7946} || I <- [0, 1, 2]].

share(Times, Share) ->
    Sorted = lists:sort(Times),
    lists:nth(max(1, ceil(length(Sorted) * Share)), Sorted).
