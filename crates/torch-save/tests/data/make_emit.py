"""Writes emit.tsv: name, a pickle of protocol 4 or 5 in hex, and the same object as CPython
writes it with protocol 2 (unused memo entries left out). Run with CPython 3.11."""

import collections
import pickle
import pickletools

shared = [1, 2]
cycle = []
cycle.append(cycle)
knot = ([],)
knot[0].append(knot)
itself = {}
itself["self"] = itself
ordered = collections.OrderedDict([("a", 1), ("b", {"c": 2})])
ordered.x = 5
cases={
 'atoms':(None,True,False,0,255,256,65535,65536,-1,2**31-1,2**31,-2**31-1,2**63,-2**63,2**70,-2**2100,1.5,float('inf'),-0.0),
 'text':['','plain','ünï','\ud800 lone','a'*300],
 'bytes':[b'\x00\xff',b'abc'],
 'containers':[(),(1,),(1,2),(1,2,3),(1,2,3,4),[],[1],{},{'a':1},{1:2,'x':(None,)}],
 'shared':[shared,shared,{'k':shared}],
 'cyclic list':cycle,
 'cyclic dict':itself,
 'tuple in its own list':knot,
 'batches':list(range(1003)),
 'batch dict':{i:None for i in range(1002)},
 'sets':[{1},{'a'},frozenset([3]),frozenset(),set()],
 'ordered':ordered,
 'classes':[dict,collections.OrderedDict,len],
 'complex':complex(1,-2),
 'memo past 255':[[x,x] for x in [[i] for i in range(300)]],
}
out=open('emit.tsv','w')
for name,obj in cases.items():
    for protocol in (4,5) if name!='bytes' else (5,):
        src=pickle.dumps(obj,protocol)
        want=pickletools.optimize(pickle.dumps(obj,2))
        out.write(f"{name}\t{src.hex()}\t{want.hex()}\n")
