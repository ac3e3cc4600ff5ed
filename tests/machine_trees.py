"""Machines made of files: what Linux shows of boards that are not at hand.

Labels, folders and units are those of NVIDIA's device trees and of reports of users; the numbers are plausible ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

__all__ = ["AGX_ORIN", "ORIN_NX", "RAPL", "THOR", "XEON", "write_tree"]

_I2C = "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3"
_CPU = "sys/devices/system/cpu"
_ZONE = "sys/class/powercap"


def write_tree(root: Path, *trees: Mapping[str, str]) -> Path:
    """Write the files below `root`, later trees over earlier ones."""
    for tree in trees:
        for name, content in tree.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = path.with_name(f".{path.name}")
            draft.write_text(content)
            draft.replace(path)  # in one step: somebody may be reading it
    return root


def _monitor(folder: str, rails: Mapping[str, tuple[int, int]]) -> dict[str, str]:
    """An INA3221: voltage, current and label of three channels, then the shunts and their sum, as the driver shows them."""
    files = {f"{folder}/name": "ina3221\n", f"{folder}/in4_input": "280\n"}
    for channel, (label, (millivolts, milliamperes)) in enumerate(rails.items(), start=1):
        files |= {
            f"{folder}/in{channel}_label": f"{label}\n",
            f"{folder}/in{channel}_input": f"{millivolts}\n",
            f"{folder}/curr{channel}_input": f"{milliamperes}\n",
        }
    return files | {f"{folder}/in7_label": "sum of shunt voltages\n", f"{folder}/in7_input": "760\n"}


def _clocks(low: int, current: int, high: int, cores: int = 2) -> dict[str, str]:
    """Clocks of cores, kHz."""
    values = {"min": low, "cur": current, "max": high}
    return {
        f"{_CPU}/cpu{core}/cpufreq/scaling_{name}_freq": f"{value}\n"
        for core in range(cores)
        for name, value in values.items()
    } | {f"{_CPU}/cpu{core}/cpufreq/scaling_governor": "schedutil\n" for core in range(cores)}


def _gpu(name: str, low: int, current: int, high: int) -> dict[str, str]:
    folder = f"sys/class/devfreq/{name}"
    return {
        f"{folder}/min_freq": f"{low}\n",
        f"{folder}/cur_freq": f"{current}\n",
        f"{folder}/max_freq": f"{high}\n",
    }


_NVPMODEL = """# comment
< PARAM TYPE=FILE NAME=GPU >
< POWER_MODEL ID=0 NAME=15W >
GPU MAX_FREQ 612000000
< POWER_MODEL ID=2 NAME=MAXN_SUPER >
GPU MAX_FREQ -1
< PM_CONFIG DEFAULT=0 >
"""
# Orin NX, JetPack 6.2.
ORIN_NX = {
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic\n",
    "proc/device-tree/model": "NVIDIA Jetson Orin NX Engineering Reference Developer Kit Super\0",
    "etc/nvpmodel.conf": _NVPMODEL,
    "var/lib/nvpmodel/status": "pmode:0002 fmode:fanNull\n",
    **_monitor(_I2C, {"VDD_IN": (4984, 960), "VDD_CPU_GPU_CV": (4976, 120), "VDD_SOC": (4976, 304)}),
    **_clocks(729600, 1190400, 1984000),
    **_gpu("17000000.gpu", 306000000, 612000000, 1173000000),
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "51187\n",
    "sys/class/thermal/thermal_zone8/type": "tj-thermal\n",
    "sys/class/thermal/thermal_zone8/temp": "52343\n",
    "sys/class/thermal/cooling_device1/type": "gpu-throttle-alert\n",
    "sys/class/thermal/cooling_device1/cur_state": "0\n",
    "sys/class/thermal/cooling_device2/type": "pwm-fan\n",
    "sys/class/thermal/cooling_device2/cur_state": "3\n",
    "sys/class/hwmon/hwmon9/oc1_event_cnt": "0\n",
    "sys/class/hwmon/hwmon9/oc3_event_cnt": "4\n",
}
# AGX Orin, JetPack 5: two monitors, none of whose rails is the input.
AGX_ORIN = {
    "etc/nv_tegra_release": "# R35 (release), REVISION: 4.1, GCID: 33958178, BOARD: t186ref\n",
    "proc/device-tree/model": "NVIDIA Jetson AGX Orin Developer Kit\0",
    **_monitor(_I2C, {"VDD_GPU_SOC": (18792, 140), "VDD_CPU_CV": (18784, 20), "VIN_SYS_5V0": (4968, 980)}),
    **_monitor(
        _I2C.replace("1-0040", "1-0041").replace("hwmon3", "hwmon4"),
        {"NC": (0, 0), "VDDQ_VDD2_1V8AO": (4968, 80)},
    ),
    **_gpu("17000000.ga10b", 1300500000, 1300500000, 1300500000),
    **_clocks(2201600, 2201600, 2201600),
}
# AGX Thor, JetPack 7: rails of the module, and the input of the board in a monitor that names no rail.
THOR = {
    "etc/nv_tegra_release": "# R38 (release), REVISION: 4.0, GCID: 0, BOARD: generic\n",
    "proc/device-tree/model": "NVIDIA Jetson AGX Thor Developer Kit\0",
    **_monitor(
        _I2C.replace("sys/bus/i2c/drivers/ina3221/1-0040/hwmon", "sys/class/hwmon"),
        {"VDD_GPU": (12040, 640), "VDD_CPU_SOC_MSS": (12040, 960), "VIN_SYS_5V0": (5088, 1740)},
    ),
    "sys/class/hwmon/hwmon5/name": "ina238\n",
    "sys/class/hwmon/hwmon5/in1_input": "19800\n",
    "sys/class/hwmon/hwmon5/curr1_input": "2020\n",
    "sys/class/hwmon/hwmon5/power1_input": "40100000\n",
    **_gpu("gpu-gpc-0", 315000000, 0, 1575000000),
}
# A server with two packages and their parts, the same once more by MMIO, and the platform.
RAPL = {
    f"{_ZONE}/intel-rapl:0/name": "package-0\n",
    f"{_ZONE}/intel-rapl:0/energy_uj": "1000000\n",
    f"{_ZONE}/intel-rapl:0/max_energy_range_uj": "262143328850\n",
    f"{_ZONE}/intel-rapl:0:0/name": "dram\n",
    f"{_ZONE}/intel-rapl:0:0/energy_uj": "7\n",
    f"{_ZONE}/intel-rapl:0:0/max_energy_range_uj": "262143328850\n",
    f"{_ZONE}/intel-rapl:1/name": "package-1\n",
    f"{_ZONE}/intel-rapl:1/energy_uj": "5000000\n",
    f"{_ZONE}/intel-rapl:1/max_energy_range_uj": "262143328850\n",
    f"{_ZONE}/intel-rapl:2/name": "psys\n",
    f"{_ZONE}/intel-rapl:2/energy_uj": "9\n",
    f"{_ZONE}/intel-rapl-mmio:0/name": "package-0\n",
    f"{_ZONE}/intel-rapl-mmio:0/energy_uj": "1000000\n",
}
XEON = {
    "proc/cpuinfo": "processor\t: 0\nmodel name\t: Intel(R) Xeon(R)\ncpu MHz\t\t: 2100.000\nflags\t\t: fpu avx2\n\n"
    "processor\t: 1\ncpu MHz\t\t: 3100.000\nflags\t\t: fpu avx2\n",
    "proc/loadavg": "0.10 0.20 0.30 1/200 4242\n",
    **_clocks(800000, 2000000, 3500000),
    f"{_CPU}/intel_pstate/no_turbo": "0\n",
    f"{_CPU}/cpu0/thermal_throttle/core_throttle_count": "3\n",
    f"{_CPU}/cpu1/thermal_throttle/core_throttle_count": "4\n",
    "sys/class/hwmon/hwmon1/name": "coretemp\n",
    "sys/class/hwmon/hwmon1/temp1_label": "Package id 0\n",
    "sys/class/hwmon/hwmon1/temp1_input": "61000\n",
    "sys/class/hwmon/hwmon1/temp2_label": "Core 0\n",
    "sys/class/hwmon/hwmon1/temp2_input": "64000\n",
}
