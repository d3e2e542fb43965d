"""Writes scalars.tsv: what OmegaConf's loader makes of plain scalars.

    pip install --target DIR omegaconf==2.3.0 pyyaml
    python make_scalars.py DIR scalars.tsv

OmegaConf 2.4.0 gives the same table.
"""
import sys, itertools, json
sys.path.insert(0, sys.argv[1])
import yaml, omegaconf
try: from omegaconf._utils import get_yaml_loader
except ImportError: from omegaconf._yaml import get_yaml_loader
from decimal import Decimal
L = get_yaml_loader()
words = "yes Yes YES yEs no No NO nO on On ON oN off Off OFF y Y n N true True TRUE tRue false False FALSE t f null Null NULL nULL ~ ~~ None none nil NaN nan .nan .NaN .NAN .Nan +.nan -.nan .inf .Inf .INF -.inf +.inf +.Inf -.INF inf -inf Infinity .iNf = << ??? ${a.b} <".split()
nums = """0 -0 +0 00 000 -00 01 07 08 09 017 -017 +017 018 0o17 0_1 0_ 0__ 0_8 1 -1 +1 12 1_000 1__0 1_ _1 -1_0 +-1 --1 -  + . .. ... -. +. ._ ._5 .5 -.5 +.5 .5e3 .5e+3 .5e-3 .5E-3 .5_0 .5_ .5__0 .5e 5. 5._ 5_. 5_.5 -5. +5.e3 5.e+3 5.e-3 5e3 5e+3 5E-3 5e 5e- 5e+ e5 1e-4 1E4 1e4 1e+04 -1e4 +1e4 1_0e4 1__0e4 1e1_0 1e400 -1e400 1e-400 1.0e-05 1.5e5 1.5e+5 1.5e-5 1.5e 1.5e+ 1_000.0 1_000.0_0 1__0.5 1_.5 1.5_ 1.2.3 1.2.3.4 1,000 0x 0x1 0xFF 0xff 0XFF -0x1F +0x1f 0x_ 0x_f 0xg 0x1_2 0xffffffffffffffff 0x7fffffffffffffff 0x8000000000000000 0b 0b1 0b101 0b_ 0b_1 0b2 -0b11 +0b11 0b1_0 0B1 12:30 12:30:45 1:2 1:60 1:59 1:5 01:30 00:30 1:2:3:4 12:30:45.5 12:30.5 12:30:45. 12:30.5_0 -12:30 +12:30 -12:30.5 1_0:30 1_:30 1:_3 1:3_ 1:300 1:a :30 12: 1:30e5 1:30.5e5 1_0:30.5 1__0:30.5 190:20:30 190:20:30.15 685230.15 6.8523015e+5 685.230_15e+03 685_230.15 02472256 0x_0A_74_AE 0b1010_0111_0100_1010_1110 685_230
2001-12-14 2001-1-1 2001-12-14t21:59:43.10-05:00 2001-12-15T02:59:43Z 9223372036854775807 9223372036854775808 -9223372036854775808 -9223372036854775809 123456789012345678901234567890 -123456789012345678901234567890 0777777777777777777777777 0b1111111111111111111111111111111111111111111111111111111111111111111 99999999999999999999:30 1:00:00:00:00:00:00:00:00:00:00:00:00 0.1 0.30000000000000004 1e22 1e23 123456789.123456789 5e-324 1.7976931348623157e308 1.7976931348623159e308 0.0 -0.0 0e0 00e1 00.5 08.5 09e1 1e09 1.e09 3.14 3,14 1/2 50% $5 1a a1 0a 0x0 -0x0 -0b0 0b0 1-1 1+1 1e5e5 1.0f 1L 1j ١ ½ é ñ 中文 word a_b a.b a:b /x/y C:\\x x=y""".split()
items = list(dict.fromkeys(words + nums))
# every short string over the letters that matter
alpha = "01_.:e+-x"
for n in (1,2,3):
    for t in itertools.product(alpha, repeat=n): items.append("".join(t))
import random
random.seed(7)
for _ in range(1500):
    items.append("".join(random.choice("0123456789__..::eE+-xb") for _ in range(random.randint(4,9))))
items = list(dict.fromkeys(items))
out=[]
for s in items:
    try: ok = yaml.compose("a: "+s+"\n", Loader=L)
    except Exception: continue
    node = ok.value[0][1]
    if not isinstance(node, yaml.ScalarNode) or node.value != s: continue
    try: v = yaml.load("a: "+s+"\n", Loader=L)["a"]
    except Exception as e:
        if "tag:yaml.org,2002:value" in str(e) or "merge" in str(e): continue
        out.append((s,"error","")); continue
    k = type(v).__name__
    if v is None: k,r="null",""
    elif isinstance(v,bool): r=str(v).lower()
    elif isinstance(v,float): r=v.hex() if v==v and abs(v)!=float("inf") else repr(v); r=repr(v)
    else: r=str(v)
    out.append((s,k,r))
with open(sys.argv[2],"w") as f:
    f.write(f"# plain scalar, type, value, as OmegaConf {omegaconf.__version__} (PyYAML {yaml.__version__}) loads `a: SCALAR`; generated\n")
    for row in out: f.write("\t".join(row)+"\n")
print(len(out))
