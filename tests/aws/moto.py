"""What the tests need of boto3: to set moto up, and to read what a sandbox was given."""
import datetime
import json
import os
import pathlib
import shutil
import sys

import boto3
import botocore

endpoint = os.environ["ENDPOINT"]


def set_up():
    iam = boto3.client("iam", endpoint_url=endpoint, region_name="eu-central-1",
                       aws_access_key_id="none", aws_secret_access_key="none")
    trust = {"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}]}
    everything = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
    # Five calls; from the sixth on, moto looks at signatures and policies.
    iam.create_user(UserName="ada")
    iam.put_user_policy(UserName="ada", PolicyName="all", PolicyDocument=json.dumps(everything))
    iam.create_role(RoleName="agents", AssumeRolePolicyDocument=json.dumps(trust))
    iam.put_role_policy(RoleName="agents", PolicyName="all", PolicyDocument=json.dumps(everything))
    key = iam.create_access_key(UserName="ada")["AccessKey"]
    print(json.dumps({"id": key["AccessKeyId"], "secret": key["SecretAccessKey"]}))


def identity():
    # Nothing but AWS_CONFIG_FILE says who this is.
    print(boto3.client("sts", endpoint_url=endpoint).get_caller_identity()["Arn"])


def living():
    """One process that lives for longer than its keys: its clock is put on, and the files change under it."""
    client, moved = boto3.client("sts", endpoint_url=endpoint), [datetime.timedelta()]
    keys = client._request_signer._credentials
    now = keys._time_fetcher
    keys._time_fetcher = lambda: now() + moved[0]
    while True:
        client.get_caller_identity()
        print(keys.get_frozen_credentials().access_key, flush=True)
        # The keys that were read before are past their end from now on.
        seconds = sys.stdin.readline()
        if not seconds:
            return
        moved[0] += datetime.timedelta(seconds=int(seconds))


def libraries():
    site, target = pathlib.Path(botocore.__file__).parent.parent, pathlib.Path(sys.argv[2])
    data = site / "botocore/data"
    kept = {data / name for name in ("sts", "partitions.json", "endpoints.json", "sdk-default-configuration.json", "_retry.json")}

    def others(folder, names):
        folder = pathlib.Path(folder)
        return [name for name in names if name == "__pycache__" or (folder == data and folder / name not in kept
                                                                   and not name.startswith(("endpoints", "partitions", "sdk-")))]

    for name in ("botocore", "jmespath", "dateutil", "urllib3"):
        shutil.copytree(site / name, target / name, ignore=others)
    shutil.copy(site / "six.py", target)


{"set_up": set_up, "identity": identity, "living": living, "libraries": libraries}[sys.argv[1]]()
