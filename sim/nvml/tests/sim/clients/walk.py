"""Every call that the supervisor makes, and what monitoring programs ask, through nvidia-ml-py."""

import os
import subprocess

import pynvml as n


def simctl(*arguments):
    subprocess.run([os.environ["NVML_SIMCTL"], *map(str, arguments)], check=True)


def refused(code, call, *arguments):
    """The call must fail with this code."""
    try:
        value = call(*arguments)
    except n.NVMLError as error:
        assert error.value == code, f"{call.__name__}: {error.value} instead of {code}"
    else:
        raise AssertionError(f"{call.__name__} gave {value} instead of error {code}")


def identity(index, gpu):
    uuid, bdf = n.nvmlDeviceGetUUID(gpu), n.nvmlDeviceGetPciInfo(gpu).busId
    assert uuid.startswith("GPU-") and len(uuid) == 40, uuid
    assert n.nvmlDeviceGetIndex(gpu) == index
    assert n.nvmlDeviceGetIndex(n.nvmlDeviceGetHandleByUUID(uuid)) == index
    assert n.nvmlDeviceGetIndex(n.nvmlDeviceGetHandleByPciBusId(bdf)) == index
    assert n.nvmlDeviceGetIndex(n.nvmlDeviceGetHandleBySerial(n.nvmlDeviceGetSerial(gpu))) == index
    assert n.nvmlDeviceGetName(gpu).startswith("NVIDIA ")
    assert n.nvmlDeviceGetMinorNumber(gpu) == index
    extended = n.nvmlPciInfoExt_v1_t(version=n.nvmlPciInfoExt_v1)
    n.nvmlDeviceGetPciInfoExt(gpu, n.byref(extended))
    assert n.nvmlDeviceGetPciInfo(gpu).pciDeviceId == extended.pciDeviceId
    assert n.nvmlDeviceGetArchitecture(gpu) in range(7, 11)
    assert n.nvmlDeviceGetCudaComputeCapability(gpu)[0] >= 8
    assert n.nvmlDeviceGetBrand(gpu) == n.NVML_BRAND_NVIDIA
    for text in (n.nvmlDeviceGetBoardPartNumber, n.nvmlDeviceGetVbiosVersion):
        assert text(gpu)
    assert n.nvmlDeviceGetMultiGpuBoard(gpu) == 0
    n.nvmlDeviceGetBoardId(gpu), n.nvmlDeviceGetNumGpuCores(gpu)
    assert n.nvmlDeviceGetVirtualizationMode(gpu) == 0
    assert sum(n.nvmlDeviceGetMemoryAffinity(gpu, 1, n.NVML_AFFINITY_SCOPE_NODE)) == 1 << (index % 2)
    n.nvmlDeviceGetCpuAffinity(gpu, 4)
    n.nvmlDeviceGetCpuAffinityWithinScope(gpu, 4, n.NVML_AFFINITY_SCOPE_SOCKET)
    refused(n.NVML_ERROR_NOT_SUPPORTED, n.nvmlDeviceGetNumaNodeId, gpu)


def measurements(index, gpu):
    simctl("measure", index, "--temperature", 55, "--power", 123456, "--utilization", 31)
    assert n.nvmlDeviceGetTemperature(gpu, n.NVML_TEMPERATURE_GPU) == 55
    assert n.nvmlDeviceGetTemperatureV(gpu, n.NVML_TEMPERATURE_GPU) == 55
    assert n.nvmlDeviceGetTemperatureThreshold(gpu, n.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN) > 55
    assert n.nvmlDeviceGetMarginTemperature(gpu) > 0
    assert n.nvmlDeviceGetPowerUsage(gpu) == 123456
    assert n.nvmlDeviceGetUtilizationRates(gpu).gpu == 31
    assert n.nvmlDeviceGetTotalEnergyConsumption(gpu) > 0
    for engine in (n.nvmlDeviceGetEncoderUtilization, n.nvmlDeviceGetDecoderUtilization):
        assert engine(gpu)[0] == 0
    assert n.nvmlDeviceGetPerformanceState(gpu) == 0
    assert n.nvmlDeviceGetCurrentClocksThrottleReasons(gpu) == 1
    assert n.nvmlDeviceGetCurrentClocksEventReasons(gpu) == 1
    assert n.nvmlDeviceGetViolationStatus(gpu, n.NVML_PERF_POLICY_THERMAL).violationTime == 0
    one, two = n.nvmlDeviceGetMemoryInfo(gpu), n.nvmlDeviceGetMemoryInfo(gpu, version=n.nvmlMemory_v2)
    assert one.total == two.total == two.free + two.reserved + two.used
    assert n.nvmlDeviceGetBAR1MemoryInfo(gpu).bar1Total >= one.total
    refused(n.NVML_ERROR_NOT_SUPPORTED, n.nvmlDeviceGetFanSpeed, gpu)


def settings(gpu):
    n.nvmlDeviceSetPersistenceMode(gpu, 1)
    assert n.nvmlDeviceGetPersistenceMode(gpu) == 1
    least, most = n.nvmlDeviceGetPowerManagementLimitConstraints(gpu)
    assert n.nvmlDeviceGetPowerManagementLimit(gpu) == n.nvmlDeviceGetPowerManagementDefaultLimit(gpu)
    n.nvmlDeviceSetPowerManagementLimit(gpu, least)
    assert n.nvmlDeviceGetEnforcedPowerLimit(gpu) == least
    refused(n.NVML_ERROR_INVALID_ARGUMENT, n.nvmlDeviceSetPowerManagementLimit, gpu, most + 1)
    memory = n.nvmlDeviceGetSupportedMemoryClocks(gpu)[0]
    graphics = n.nvmlDeviceGetSupportedGraphicsClocks(gpu, memory)
    assert graphics[0] == n.nvmlDeviceGetMaxClockInfo(gpu, n.NVML_CLOCK_GRAPHICS)
    n.nvmlDeviceSetGpuLockedClocks(gpu, graphics[2], graphics[2])
    assert n.nvmlDeviceGetClockInfo(gpu, n.NVML_CLOCK_SM) == graphics[2]
    n.nvmlDeviceResetGpuLockedClocks(gpu)
    n.nvmlDeviceSetMemoryLockedClocks(gpu, memory, memory)
    n.nvmlDeviceResetMemoryLockedClocks(gpu)
    n.nvmlDeviceSetApplicationsClocks(gpu, memory, graphics[1])
    assert n.nvmlDeviceGetApplicationsClock(gpu, n.NVML_CLOCK_GRAPHICS) == graphics[1]
    n.nvmlDeviceResetApplicationsClocks(gpu)
    assert n.nvmlDeviceGetClock(gpu, n.NVML_CLOCK_MEM, n.NVML_CLOCK_ID_CURRENT) == memory
    n.nvmlDeviceSetComputeMode(gpu, n.NVML_COMPUTEMODE_EXCLUSIVE_PROCESS)
    assert n.nvmlDeviceGetComputeMode(gpu) == n.NVML_COMPUTEMODE_EXCLUSIVE_PROCESS


def health(index, gpu):
    simctl("ecc", "--gpu", index, "--corrected", 3, "--uncorrected", 2)
    for counter in (n.NVML_VOLATILE_ECC, n.NVML_AGGREGATE_ECC):
        assert n.nvmlDeviceGetTotalEccErrors(gpu, n.NVML_MEMORY_ERROR_TYPE_CORRECTED, counter) == 3
        assert n.nvmlDeviceGetMemoryErrorCounter(
            gpu, n.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, counter, n.NVML_MEMORY_LOCATION_DEVICE_MEMORY) == 2
    n.nvmlDeviceClearEccErrorCounts(gpu, n.NVML_VOLATILE_ECC)
    assert n.nvmlDeviceGetTotalEccErrors(gpu, 0, n.NVML_VOLATILE_ECC) == 0
    assert n.nvmlDeviceGetEccMode(gpu) == [1, 1]
    simctl("rows", "--gpu", index, "--uncorrected", 1, "--pending")
    assert n.nvmlDeviceGetRemappedRows(gpu) == (0, 1, 1, 0)
    assert n.nvmlDeviceGetRowRemapperHistogram(gpu).high == 1
    simctl("reset-required", index)
    fields = n.nvmlDeviceGetFieldValues(gpu, [
        n.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION, n.NVML_FI_DEV_REMAPPED_PENDING,
        n.NVML_FI_DEV_ECC_DBE_AGG_TOTAL, n.NVML_FI_DEV_MEMORY_TEMP, n.NVML_FI_DEV_POWER_INSTANT,
        n.NVML_FI_DEV_IS_RESETLESS_MIG_SUPPORTED])
    assert [field.nvmlReturn for field in fields] == [0] * 6
    assert (fields[0].value.uiVal, fields[1].value.uiVal, fields[2].value.ullVal) == (1, 1, 2)
    simctl("reset", index)
    assert n.nvmlDeviceGetRemappedRows(gpu) == (0, 1, 0, 0)


def links(index, gpu):
    generation = n.nvmlDeviceGetMaxPcieLinkGeneration(gpu)
    assert n.nvmlDeviceGetCurrPcieLinkGeneration(gpu) == generation
    simctl("measure", index, "--pcie-generation", 3, "--pcie-width", 8, "--pcie-replays", 5)
    assert n.nvmlDeviceGetCurrPcieLinkGeneration(gpu) == 3
    assert n.nvmlDeviceGetCurrPcieLinkWidth(gpu) == 8 < n.nvmlDeviceGetMaxPcieLinkWidth(gpu)
    assert n.nvmlDeviceGetPcieReplayCounter(gpu) == 5
    assert n.nvmlDeviceGetPcieThroughput(gpu, n.NVML_PCIE_UTIL_TX_BYTES) == 0
    count = n.nvmlDeviceGetFieldValues(gpu, [n.NVML_FI_DEV_NVLINK_LINK_COUNT])[0].value.uiVal
    if count == 0:
        return refused(n.NVML_ERROR_NOT_SUPPORTED, n.nvmlDeviceGetNvLinkState, gpu, 0)
    simctl("measure", index, "--nvlink-down", 4, "--nvlink-errors", 9)
    assert [n.nvmlDeviceGetNvLinkState(gpu, link) for link in (3, 4)] == [1, 0]
    assert n.nvmlDeviceGetNvLinkErrorCounter(gpu, 0, n.NVML_NVLINK_ERROR_DL_CRC_FLIT) == 9
    n.nvmlDeviceGetNvLinkVersion(gpu, 0)
    fabric = n.c_nvmlGpuFabricInfoV_t()
    n.nvmlDeviceGetGpuFabricInfoV(gpu, n.byref(fabric))
    assert fabric.state == n.NVML_GPU_FABRIC_STATE_COMPLETED


def processes(index, gpu):
    simctl("process", "add", "--gpu", index, "--pid", 77, "--memory-mib", 100)
    for call in (n.nvmlDeviceGetComputeRunningProcesses_v2, n.nvmlDeviceGetComputeRunningProcesses_v3):
        [user] = call(gpu)
        assert (user.pid, user.usedGpuMemory) == (77, 100 << 20)
    assert n.nvmlDeviceGetGraphicsRunningProcesses(gpu) == []
    assert n.nvmlDeviceGetMPSComputeRunningProcesses(gpu) == []
    assert n.nvmlDeviceGetProcessUtilization(gpu, 0)[0].pid == 77
    assert n.nvmlSystemGetProcessName(77) == "python3"
    simctl("process", "remove", "--gpu", index, "--pid", 77)
    assert n.nvmlDeviceGetComputeRunningProcesses(gpu) == []


def profiles(gpu):
    """Profile number -> (id, slices, promised count) by all three ways of asking."""
    found = {}
    for number in range(n.NVML_GPU_INSTANCE_PROFILE_COUNT):
        try:
            info = n.nvmlDeviceGetGpuInstanceProfileInfo(gpu, number, version=1)
        except n.NVMLError_NotSupported:
            continue
        by_version = n.nvmlDeviceGetGpuInstanceProfileInfo(gpu, number, version=2)
        by_id = n.nvmlDeviceGetGpuInstanceProfileInfoById(gpu, info.id)
        assert by_version.id == by_id.id == info.id
        assert by_version.memorySizeMB == info.memorySizeMB > 0
        found[number] = info
    return found


def slices(index, gpu):
    known = profiles(gpu)
    assert len(known) >= 5
    assert n.nvmlDeviceSetMigMode(gpu, 1) == 0 and n.nvmlDeviceGetMigMode(gpu) == [1, 1]
    for info in known.values():
        count = n.c_uint(0)
        n.nvmlDeviceGetGpuInstancePossiblePlacements(gpu, info.id, None, n.byref(count))
        places = (n.c_nvmlGpuInstancePlacement_t * count.value)()
        n.nvmlDeviceGetGpuInstancePossiblePlacements(gpu, info.id, places, n.byref(count))
        assert count.value >= info.instanceCount and all(place.size for place in places)
        instance = n.nvmlDeviceCreateGpuInstanceWithPlacement(gpu, info.id, n.byref(places[-1]))
        assert n.nvmlGpuInstanceGetInfo(instance).placement.start == places[-1].start
        listed = (n.c_nvmlGpuInstance_t * info.instanceCount)()
        n.nvmlDeviceGetGpuInstances(gpu, info.id, listed, n.byref(count))
        assert count.value == 1
        n.nvmlGpuInstanceDestroy(listed[0])
        assert n.nvmlDeviceGetGpuInstanceRemainingCapacity(gpu, info.id) >= info.instanceCount
    smallest = known[0]
    made = [n.nvmlDeviceCreateGpuInstance(gpu, smallest.id) for _ in range(2)]
    refused(n.NVML_ERROR_INSUFFICIENT_RESOURCES, n.nvmlDeviceCreateGpuInstance, gpu,
            max(known.values(), key=lambda info: info.sliceCount).id)
    for instance in made:
        about = n.nvmlGpuInstanceGetInfo(instance)
        assert about.profileId == smallest.id
        again = n.nvmlDeviceGetGpuInstanceById(gpu, about.id)
        assert n.nvmlGpuInstanceGetInfo(again).id == about.id
        profile = n.nvmlGpuInstanceGetComputeInstanceProfileInfo(instance, 0, 0)
        assert n.nvmlGpuInstanceGetComputeInstanceRemainingCapacity(instance, profile.id) == 1
        compute = n.nvmlGpuInstanceCreateComputeInstance(instance, profile.id)
        device = n.nvmlComputeInstanceGetInfo(compute).device
        mig_device(index, gpu, device, about)
        refused(n.NVML_ERROR_IN_USE, n.nvmlGpuInstanceDestroy, instance)
    assert n.nvmlDeviceGetMaxMigDeviceCount(gpu) >= 4
    refused(n.NVML_ERROR_NOT_FOUND, n.nvmlDeviceGetMigDeviceHandleByIndex, gpu, 2)
    for instance in made:
        compute = n.nvmlGpuInstanceGetComputeInstanceById(instance, 0)
        n.nvmlComputeInstanceDestroy(compute)
        n.nvmlGpuInstanceDestroy(instance)
    assert n.nvmlDeviceSetMigMode(gpu, 0) == 0 and n.nvmlDeviceGetMigMode(gpu) == [0, 0]


def mig_device(index, gpu, device, about):
    assert [n.nvmlDeviceIsMigDeviceHandle(of).value for of in (device, gpu)] == [1, 0]
    uuid = n.nvmlDeviceGetUUID(device)
    same = n.nvmlDeviceGetHandleByUUID(uuid)
    assert n.nvmlDeviceGetGpuInstanceId(same) == about.id
    assert n.nvmlDeviceGetComputeInstanceId(same) == 0
    assert n.nvmlDeviceGetIndex(n.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(same)) == index
    assert " MIG 1g." in n.nvmlDeviceGetName(same)
    attributes = n.nvmlDeviceGetAttributes(same)
    assert attributes.computeInstanceSliceCount == 1
    assert attributes.memorySizeMB << 20 == n.nvmlDeviceGetMemoryInfo(same).total
    refused(n.NVML_ERROR_NOT_SUPPORTED, n.nvmlDeviceGetPowerUsage, same)
    refused(n.NVML_ERROR_NOT_SUPPORTED, n.nvmlDeviceGetClockInfo, same, n.NVML_CLOCK_SM)
    refused(n.NVML_ERROR_NOT_SUPPORTED, n.nvmlDeviceGetUtilizationRates, same)


def events(index, gpu):
    kinds = n.nvmlDeviceGetSupportedEventTypes(gpu)
    assert kinds & n.nvmlEventTypeXidCriticalError
    waiting = n.nvmlEventSetCreate()
    n.nvmlDeviceRegisterEvents(gpu, n.nvmlEventTypeXidCriticalError, waiting)
    refused(n.NVML_ERROR_TIMEOUT, n.nvmlEventSetWait_v2, waiting, 10)
    simctl("xid", 31, "--gpu", index)
    event = n.nvmlEventSetWait_v2(waiting, 10_000)
    assert (event.eventData, event.gpuInstanceId) == (31, 0xFFFFFFFF)
    refused(n.NVML_ERROR_TIMEOUT, n.nvmlEventSetWait_v2, waiting, 10)
    n.nvmlEventSetFree(waiting)


def main():
    refused(n.NVML_ERROR_UNINITIALIZED, n.nvmlDeviceGetCount)
    n.nvmlInit()
    assert n.nvmlSystemGetDriverVersion() == "580.82.07"
    assert n.nvmlSystemGetNVMLVersion().startswith("13.")
    assert n.nvmlSystemGetCudaDriverVersion() == 13000
    assert n.nvmlSystemGetDriverBranch().branch in ("r580_00", b"r580_00")
    count = n.nvmlDeviceGetCount()
    refused(n.NVML_ERROR_INVALID_ARGUMENT, n.nvmlDeviceGetHandleByIndex, count)
    refused(n.NVML_ERROR_NOT_FOUND, n.nvmlDeviceGetHandleByUUID, "GPU-no")
    gpus = [n.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
    for index, gpu in enumerate(gpus):
        identity(index, gpu)
        measurements(index, gpu)
        settings(gpu)
        health(index, gpu)
        links(index, gpu)
        processes(index, gpu)
        events(index, gpu)
        try:
            n.nvmlDeviceGetMigMode(gpu)
        except n.NVMLError_NotSupported:
            refused(n.NVML_ERROR_NOT_SUPPORTED, n.nvmlDeviceSetMigMode, gpu, 1)
        else:
            slices(index, gpu)
    assert n.nvmlDeviceGetTopologyCommonAncestor(gpus[0], gpus[1]) == n.NVML_TOPOLOGY_SYSTEM
    simctl("lost", 1)
    refused(n.NVML_ERROR_GPU_IS_LOST, n.nvmlDeviceGetName, gpus[1])
    n.nvmlDeviceGetName(gpus[0])
    refused(n.NVML_ERROR_NOT_SUPPORTED, n.nvmlDeviceGetVgpuMetadata, gpus[0])
    n.nvmlShutdown()
    print(f"walked {count} GPUs")


main()
