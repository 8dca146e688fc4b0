# {} -> [["10.0.0.1", "10.0.0.2"], 4, "255.255.255.252", true, ["a", "b"], ["a", "b c"], [1, 2, 6], [["a", "a"], ["a", "b"]], [[1, 2], [0, 3]], [1, 2], 1]
import ipaddress
import graphlib
import shlex
import itertools as it


def run():
    n = ipaddress.ip_network("10.0.0.0/30")
    return [[str(h) for h in n.hosts()], n.num_addresses, str(n.netmask), ipaddress.ip_address("::1").is_loopback, list(graphlib.TopologicalSorter({"b": {"a"}}).static_order()), shlex.split("a 'b c'"), list(it.accumulate([1, 2, 3], lambda a, b: a * b)), list(it.product("ab", repeat=2))[:2], list(it.zip_longest([1], [2, 3], fillvalue=0)), list(it.chain.from_iterable([[1], [2]])), next(it.tee([1])[0])]
