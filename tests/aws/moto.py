"""What the tests need of boto3: to set moto up, and to read what a sandbox was given."""
import json
import os
import sys

import boto3

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


{"set_up": set_up, "identity": identity}[sys.argv[1]]()
